//go:build !unix

package tenantdb

import "syscall"

// socketCheck has no answer here. A connection that has ended is noticed by the
// next statement.
type socketCheck struct{}

func newSocketCheck(syscall.Conn) *socketCheck { return nil }

func (*socketCheck) hasPending() bool { return false }
