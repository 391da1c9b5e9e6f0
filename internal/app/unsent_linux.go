package app

import (
	"net"

	"golang.org/x/sys/unix"
)

// maxUnsent is how many bytes of a response the operating system keeps for a connection
// beyond those that are on their way to the client.
const maxUnsent = 128 << 10

// limitUnsent makes the operating system keep at most maxUnsent bytes for conn that are not
// on their way, instead of up to 4 MiB. The rest of a response for a client that reads slowly
// stays in the process, where it counts against the memory budget. It does not slow a client
// that reads (tcp(7), TCP_NOTSENT_LOWAT). A connection that refuses the option works
// without it.
func limitUnsent(conn net.Conn) {
	t, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent)
	})
}
