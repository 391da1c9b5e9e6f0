//go:build unix

package tenantdb

import "syscall"

// socketCheck asks a socket whether there is something to be read. One goroutine
// at a time uses it.
type socketCheck struct {
	raw     syscall.RawConn
	buffer  [1]byte
	pending bool
	look    func(fd uintptr) // made once: it is called before each use of a connection
}

func newSocketCheck(socket syscall.Conn) *socketCheck {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	c := &socketCheck{raw: raw}
	c.look = func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), c.buffer[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		c.pending = err != syscall.EAGAIN && err != syscall.EWOULDBLOCK && err != syscall.EINTR
	}
	return c
}

// hasPending reports whether something can be read from a connection that waits
// for a request: the server has ended it, or says why it will. Nothing is taken
// from the socket. It is false for a nil socketCheck.
func (c *socketCheck) hasPending() bool {
	if c == nil {
		return false
	}
	err := c.raw.Control(c.look)
	return err != nil || c.pending
}
