package masterdbtest

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// StatementCounter is a proxy that counts the statements that a PostgreSQL server receives
// on all connections through it. It is safe for concurrent use.
type StatementCounter struct {
	target string

	mu          sync.Mutex
	counts      map[string]int          // by the text of the statement
	preparedOn  map[string]map[int]bool // by the text of the statement, the connections that prepared it
	roundTrips  []RoundTrip
	connections int
	err         error
}

// RoundTrip is what a client has sent together, before it waited for the answer.
type RoundTrip struct {
	Connection int
	Statements []string

	// Warms is whether nothing was executed: the connection prepared, for the first time,
	// what another connection had prepared before. A pool does that once per connection.
	Warms bool
}

// RoundTrips returns the round trips since the last Reset, in their order.
func (c *StatementCounter) RoundTrips() []RoundTrip {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.roundTrips)
}

// NewStatementCounter starts a proxy in front of the database at dsn and returns
// a URL that leads through it. The connection must not use TLS.
func NewStatementCounter(t testing.TB, dsn string) (*StatementCounter, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	fatal(t, err)
	c := &StatementCounter{target: u.Host, counts: map[string]int{}, preparedOn: map[string]map[int]bool{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go c.forward(client)
		}
	}()
	u.Host = l.Addr().String()
	return c, u.String()
}

// Reset returns how often each statement was received since the last call, by
// its text, and an error if a connection could not be read.
func (c *StatementCounter) Reset() (map[string]int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := c.counts
	c.counts, c.roundTrips = map[string]int{}, nil
	return counts, c.err
}

// DescribeStatements lists statements, the most frequent first.
func DescribeStatements(counts map[string]int) string {
	texts := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	var out strings.Builder
	for _, text := range texts {
		fmt.Fprintf(&out, "%6d  %.160s\n", counts[text], strings.Join(strings.Fields(text), " "))
	}
	return out.String()
}

func (c *StatementCounter) forward(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	defer server.Close()
	read, write := io.Pipe()
	go func() {
		c.count(read)
		_, _ = io.Copy(io.Discard, read)
	}()
	go func() {
		_, _ = io.Copy(server, io.TeeReader(client, write))
		_ = write.Close()
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
}

// count reads the messages of a client. A simple query is one statement, and so is each
// execution of a prepared statement. Source: PostgreSQL manual, "Message Formats".
func (c *StatementCounter) count(from io.Reader) {
	if _, err := readMessage(from); err != nil { // the start-up message has no type
		c.fail(err)
		return
	}
	connection := c.connect()
	var together, parsed []string
	prepared, bound := map[string]string{}, map[string]string{}
	for {
		var kind [1]byte
		if _, err := io.ReadFull(from, kind[:]); err != nil {
			c.fail(err)
			return
		}
		body, err := readMessage(from)
		if err != nil {
			c.fail(err)
			return
		}
		switch kind[0] {
		case 'Q': // Query: text
			text, _ := cutString(body)
			c.add(text)
			c.wait(RoundTrip{connection, []string{text}, false})
		case 'P': // Parse: statement, text
			name, rest := cutString(body)
			prepared[name], _ = cutString(rest)
			parsed = append(parsed, prepared[name])
		case 'B': // Bind: portal, statement
			portal, rest := cutString(body)
			name, _ := cutString(rest)
			bound[portal] = prepared[name]
		case 'E': // Execute: portal
			portal, _ := cutString(body)
			c.add(bound[portal])
			together = append(together, bound[portal])
		case 'S': // Sync: the client waits until the server is ready for the next query
			warms := c.prepare(connection, parsed) && len(together) == 0
			c.wait(RoundTrip{connection, together, warms})
			together, parsed = nil, nil
		}
	}
}

// readMessage reads a length, which includes itself, and the bytes after it. It returns
// those bytes.
func readMessage(from io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(from, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n < 4 || n > 1<<24 {
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	body := make([]byte, n-4)
	_, err := io.ReadFull(from, body)
	return body, err
}

// cutString returns the text before the first zero byte, and the bytes after it.
func cutString(b []byte) (string, []byte) {
	text, rest, _ := bytes.Cut(b, []byte{0})
	return string(text), rest
}

func (c *StatementCounter) add(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[text]++
}

func (c *StatementCounter) connect() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connections++
	return c.connections
}

// prepare notes the statements that a connection has prepared. It reports whether they are
// new to this connection, but not to all.
func (c *StatementCounter) prepare(connection int, statements []string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	warms := len(statements) > 0
	for _, text := range statements {
		on := c.preparedOn[text]
		warms = warms && len(on) > 0 && !on[connection]
		if on == nil {
			on = map[int]bool{}
			c.preparedOn[text] = on
		}
		on[connection] = true
	}
	return warms
}

func (c *StatementCounter) wait(trip RoundTrip) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roundTrips = append(c.roundTrips, trip)
}

func (c *StatementCounter) fail(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return // the connection ended
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}
