//go:build unix

package tenantdb

import "syscall"

// hasPending reports whether something can be read from a connection that waits
// for a request: the server has ended it, or says why it will. Nothing is taken
// from the socket.
func hasPending(socket syscall.Conn) bool {
	raw, err := socket.SyscallConn()
	if err != nil {
		return true
	}
	pending := false
	err = raw.Control(func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		pending = err != syscall.EAGAIN && err != syscall.EWOULDBLOCK && err != syscall.EINTR //nolint:errorlint // an errno
	})
	return err != nil || pending
}
