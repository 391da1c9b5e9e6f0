//go:build !linux

package app

import "net"

// limitUnsent does nothing: this operating system sizes its buffers by itself.
func limitUnsent(net.Conn) {}
