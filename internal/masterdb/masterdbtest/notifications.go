package masterdbtest

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
)

// NotificationFilter is a proxy in front of a PostgreSQL server that understands the
// protocol. While it is silent it drops notifications and forwards everything else, like a
// pooler in transaction mode. It is safe for concurrent use.
type NotificationFilter struct {
	target   string
	listener net.Listener
	silent   atomic.Bool
}

// NewNotificationFilter starts a filter in front of the database at dsn and returns a URL
// that leads through it. The connection must not use TLS.
func NewNotificationFilter(t testing.TB, dsn string) (*NotificationFilter, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	fatal(t, err)
	f, err := newNotificationFilter(u.Host)
	fatal(t, err)
	t.Cleanup(func() { _ = f.listener.Close() })
	u.Host = f.listener.Addr().String()
	return f, u.String()
}

func newNotificationFilter(target string) (*NotificationFilter, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &NotificationFilter{target: target, listener: l}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go f.forward(client)
		}
	}()
	return f, nil
}

// SetSilent makes the filter drop notifications, or let them through again. Dropped ones are
// lost.
func (f *NotificationFilter) SetSilent(silent bool) { f.silent.Store(silent) }

func (f *NotificationFilter) forward(client net.Conn) {
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", f.target)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	_ = f.filter(client, server)
}

// notificationResponse is the type of the message that delivers a notification. Source:
// PostgreSQL manual, "Message Formats".
const notificationResponse = 'A'

// filter forwards the server's messages. Each consists of a type and a length that includes
// itself.
func (f *NotificationFilter) filter(to io.Writer, from io.Reader) error {
	in, out := bufio.NewReader(from), bufio.NewWriter(to)
	for {
		if in.Buffered() == 0 { // the server has sent no more, and the client may wait for this
			if err := out.Flush(); err != nil {
				return err
			}
		}
		var head [5]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			_ = out.Flush()
			return err
		}
		to := io.Writer(out)
		if head[0] == notificationResponse && f.silent.Load() {
			to = io.Discard
		}
		if _, err := to.Write(head[:]); err != nil {
			return err
		}
		if _, err := io.CopyN(to, in, int64(binary.BigEndian.Uint32(head[1:]))-4); err != nil {
			return err
		}
	}
}
