package managed_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// cutter forwards plaintext connections to a database server. It ends all of
// them at a chosen statement: after the server has executed it and before the
// answer arrives.
type cutter struct {
	engine   credential.EngineName
	target   string
	listener net.Listener

	mu   sync.Mutex
	left int // statements until the cut; 0: no cut
	cut  bool
}

func newCutter(t *testing.T, engine credential.EngineName, target string) *cutter {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	w := &cutter{engine: engine, target: target, listener: listener}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go w.carry(conn)
		}
	}()
	return w
}

func (w *cutter) address() string { return w.listener.Addr().String() }

// cutAt ends all connections at the n-th statement from now on.
func (w *cutter) cutAt(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left, w.cut = n, false
}

// repair ends the cutting and reports whether there was a cut.
func (w *cutter) repair() (cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	cut = w.cut
	w.left, w.cut = 0, false
	return cut
}

func (w *cutter) isCut() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut
}

// isLast counts a statement and reports whether it is the one at which to cut.
func (w *cutter) isLast() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left > 0 {
		w.left--
		w.cut = w.left == 0
	}
	return w.cut
}

func (w *cutter) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", w.target)
	if err != nil {
		return
	}
	defer server.Close()
	if w.isCut() {
		return
	}
	silent := make(chan struct{}) // closed when no further answer may pass
	go func() {
		defer client.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := server.Read(buf)
			select {
			case <-silent:
				return // the statement is executed
			default:
			}
			if _, werr := client.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	}()
	in := bufio.NewReader(client)
	for first := true; ; first = false {
		message, counts, err := w.read(in, first)
		if err != nil {
			return
		}
		last := counts && w.isLast()
		if last {
			close(silent)
		}
		if _, err := server.Write(message); err != nil {
			return
		}
		if last {
			if w.engine == credential.PostgreSQL { // PostgreSQL answers when the client requests it
				_, _ = server.Write([]byte{'S', 0, 0, 0, 4})
			}
			_, _ = io.Copy(io.Discard, in) // until the other direction is closed
			return
		}
	}
}

// read returns the next message and whether it makes the server execute a
// statement.
func (w *cutter) read(in *bufio.Reader, first bool) (message []byte, counts bool, err error) {
	header, length := 5, func(h []byte) int { return int(binary.BigEndian.Uint32(h[1:])) - 4 }
	switch {
	case w.engine == credential.MySQL:
		header, length = 4, func(h []byte) int { return int(h[0]) | int(h[1])<<8 | int(h[2])<<16 }
	case first: // the startup message has no type
		header, length = 4, func(h []byte) int { return int(binary.BigEndian.Uint32(h)) - 4 }
	}
	message = make([]byte, header)
	if _, err := io.ReadFull(in, message); err != nil {
		return nil, false, err
	}
	body := make([]byte, length(message))
	if _, err := io.ReadFull(in, body); err != nil {
		return nil, false, err
	}
	if w.engine == credential.MySQL {
		const comQuery, comExecute = 0x03, 0x17
		counts = message[3] == 0 && len(body) > 0 && (body[0] == comQuery || body[0] == comExecute)
	} else {
		counts = !first && (message[0] == 'E' || message[0] == 'Q')
	}
	return append(message, body...), counts, nil
}
