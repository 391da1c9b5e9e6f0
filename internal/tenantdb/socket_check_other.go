//go:build !unix

package tenantdb

import "syscall"

// socketCheck does nothing on this system. The next statement fails if the
// connection has ended.
type socketCheck struct{}

func newSocketCheck(syscall.Conn) *socketCheck { return nil }

func (*socketCheck) hasPending() bool { return false }
