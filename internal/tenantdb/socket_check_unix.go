//go:build unix

package tenantdb

import "syscall"

// socketCheck checks whether data can be read from a socket. It is not safe for
// concurrent use.
type socketCheck struct {
	raw     syscall.RawConn
	buffer  [1]byte
	pending bool
	look    func(fd uintptr) // created once, because it is called before each use of a connection
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

// hasPending reports whether data can be read from a connection that waits for
// a request. If so, the server has ended the connection or sends the reason why
// it will. hasPending reads no data from the socket. It returns false for a nil
// socketCheck.
func (c *socketCheck) hasPending() bool {
	if c == nil {
		return false
	}
	err := c.raw.Control(c.look)
	return err != nil || c.pending
}
