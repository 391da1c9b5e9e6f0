package tenantdb_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// recordingConn records what a server sends, split where the client writes.
type recordingConn struct {
	net.Conn
	mu    sync.Mutex // a COPY writes while it reads
	parts [][]byte
}

func (c *recordingConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.parts = append(c.parts, nil)
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *recordingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	last := len(c.parts) - 1
	c.parts[last] = append(c.parts[last], p[:n]...)
	return n, err
}

// script returns the recording as an input of the fuzz target, from after the
// log-in.
func (c *recordingConn) script(f func([]byte) []byte) (out []byte) {
	admitted := false
	for _, part := range c.parts {
		if admitted {
			part = f(part)
			out = binary.BigEndian.AppendUint16(out, uint16(len(part)))
			out = append(out, part...)
		}
		admitted = admitted || strings.HasSuffix(string(part), "Z\x00\x00\x00\x05I")
	}
	return out
}

// unframed returns messages without the upper half of their lengths.
func unframed(p []byte) (out []byte) {
	for len(p) > 0 {
		length := binary.BigEndian.Uint32(p[1:])
		out = append(out, p[0])
		out = binary.BigEndian.AppendUint16(out, uint16(length-4))
		out = append(out, p[5:1+length]...)
		p = p[1+length:]
	}
	return out
}

// recordEnv is the environment variable that, if set, makes the test record a
// session again as a seed of the fuzz target.
const recordEnv = "STOA_RECORD"

// TestPostgresSessionPassesTheScreen checks that a session with a real server,
// with all operations on stores' databases, passes the screen. The session is
// the seed of the fuzz target.
func TestPostgresSessionPassesTheScreen(t *testing.T) {
	t.Parallel()
	if !slices.Contains(tenantdbtest.Engines(), credential.PostgreSQL) {
		t.Skip("needs PostgreSQL")
	}
	c := tenantdbtest.Create(t, credential.PostgreSQL)
	var recorded *recordingConn
	pool := tenantdb.ScreenedPool(c, func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil || recorded != nil {
			return nil, fmt.Errorf("a second connection: %w", err)
		}
		recorded = &recordingConn{Conn: conn}
		return recorded, nil
	})
	pool.SetMaxOpenConns(1)
	defer pool.Close() //nolint:errcheck // nothing is pending
	testkit.Must(t, pool.PingContext(t.Context()))
	failed := useEverything(t.Context(), pool)
	if len(failed) != 2 || !strings.Contains(failed[0].Error(), "not a number") || !strings.Contains(failed[1].Error(), "no_such_column") {
		t.Errorf("got %v", failed)
	}
	testkit.Must(t, pool.PingContext(t.Context())) // on the same connection
	if os.Getenv(recordEnv) == "" {
		return
	}
	plain := func(p []byte) []byte { return p }
	for name, seed := range map[string][]byte{
		"session":          append([]byte{pgAdmits | pgFramed}, recorded.script(unframed)...),
		"session-bytewise": append([]byte{pgAdmits | pgTrickle}, recorded.script(plain)...),
	} {
		file := filepath.Join("testdata", "fuzz", "FuzzPostgresScreen", name)
		testkit.Must(t, os.MkdirAll(filepath.Dir(file), 0o750))
		testkit.Must(t, os.WriteFile(file, fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n", seed), 0o600))
	}
}
