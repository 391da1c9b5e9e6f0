package tenantdb

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// A fuzzed server has turns: a turn is what it sends after each time that the
// client has written. In the input, a turn is its length, of two bytes, and its
// content.
const (
	fuzzAdmits = 1 << iota // the connection phase is valid, and not part of the input
	fuzzFrames             // a turn is a list of packets without headers, each after its length, of one byte
	fuzzBytes              // the client reads one byte at a time
	fuzzOld                // the valid connection phase is that of a server without CLIENT_DEPRECATE_EOF
	fuzzMariaDB
)

// scriptConn is the connection to a fuzzed server.
type scriptConn struct {
	net.Conn // nil: no other method is called
	mode     byte
	turns    []byte
	admitted int  // packets of a valid connection phase that were sent
	turn     bool // the client has written since the last turn
	next     byte // sequence number
	pending  []byte
}

func (c *scriptConn) Write(p []byte) (int, error) {
	c.turn = true
	if len(p) > 3 {
		c.next = p[3] + 1
	}
	return len(p), nil
}

func (c *scriptConn) Read(p []byte) (int, error) {
	if len(c.pending) == 0 {
		if !c.turn {
			return 0, io.EOF
		}
		c.turn = false
		c.pending = c.take()
	}
	if c.mode&fuzzBytes != 0 {
		p = p[:1]
	}
	n := copy(p, c.pending)
	c.pending = c.pending[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (*scriptConn) Close() error { return nil }

func (c *scriptConn) take() []byte {
	if c.mode&fuzzAdmits != 0 && c.admitted < 3 {
		c.admitted++
		switch c.admitted {
		case 1:
			return goodGreeting(c.mode)
		default: // the session's settings, after the log-in
			return c.frame([]byte("\x07\x00\x00\x00\x02\x00\x00\x00"))
		}
	}
	if len(c.turns) < 2 {
		return nil
	}
	n := min(int(binary.LittleEndian.Uint16(c.turns)), len(c.turns)-2)
	turn := c.turns[2 : 2+n]
	c.turns = c.turns[2+n:]
	if c.mode&fuzzFrames != 0 {
		return c.frame(turn)
	}
	return turn
}

func (c *scriptConn) frame(packets []byte) (framed []byte) {
	for len(packets) > 0 {
		n := min(int(packets[0]), len(packets)-1)
		framed = append(framed, byte(n), 0, 0, c.next)
		framed = append(framed, packets[1:1+n]...)
		packets = packets[1+n:]
		c.next++
	}
	return framed
}

func goodGreeting(mode byte) []byte {
	low, high, extended := []byte{0xff, 0xf7}, []byte{0xff, 0x81}, []byte{0, 0, 0, 0}
	if mode&fuzzOld != 0 {
		high[1] = 0x80
	}
	if mode&fuzzMariaDB != 0 {
		low[0], extended[0] = 0xfe, 0x1f
	}
	p := append([]byte{10}, "10.11.0-MariaDB\x00\x01\x00\x00\x0012345678\x00"...)
	p = append(p, low...)
	p = append(p, 45, 2, 0)
	p = append(p, high...)
	p = append(p, 21, 0, 0, 0, 0, 0, 0)
	p = append(p, extended...)
	p = append(p, "123456789012\x00mysql_native_password\x00"...)
	return append([]byte{byte(len(p)), 0, 0, 0}, p...)
}

// FuzzMySQLScreen sends the real driver what a server may send, through the
// screen and without any recover. It fails if the driver panics.
func FuzzMySQLScreen(f *testing.F) {
	for _, seed := range mysqlSessions(f) {
		f.Add(byte(0), seed)
		f.Add(byte(fuzzBytes), seed)
	}
	for _, mode := range []byte{fuzzAdmits, fuzzAdmits | fuzzFrames, fuzzAdmits | fuzzFrames | fuzzOld, fuzzAdmits | fuzzFrames | fuzzMariaDB, fuzzFrames} {
		for _, seed := range mysqlAnswers() {
			f.Add(mode, seed)
		}
	}
	f.Fuzz(func(_ *testing.T, mode byte, turns []byte) {
		converse(&scriptConn{mode: mode, turns: turns, turn: true})
	})
}

// everyType selects a column of each type that Stoa uses, and of some others.
const everyType = `SELECT 1, -2.5, 'abc', NULL, DATE '2024-01-01', TIMESTAMP '2024-01-02 03:04:05.678', TIME '10:11:12', x'00ff', 1e10, 18446744073709551615`

// converse uses a connection as the platform does: it connects, queries,
// prepares and reads all rows.
func converse(conn net.Conn) {
	cfg := mysqlConfig(credential.Credentials{Host: "h", Port: 1, User: "u", Password: keyring.NewSecret("p"), Database: "d"})
	cfg.Net = "tcp"
	var socket *mysqlSocket
	cfg.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		socket = newMySQLSocket(conn, nil, keyring.Secret{})
		return socket, nil
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	connected, err := connector.Connect(ctx)
	if err != nil {
		return
	}
	socket.checks.Established()
	c := connected.(mysqlConn)
	defer c.Close() //nolint:errcheck // there is no server
	rows, err := c.QueryContext(ctx, everyType, nil)
	readAll(rows, err)
	for _, query := range []string{everyType + ", ?", "SELECT ?", "DO ?"} {
		prepared(ctx, c, query)
	}
	_, _ = c.ExecContext(ctx, "DO 1", nil)
	if tx, err := c.BeginTx(ctx, driver.TxOptions{}); err == nil {
		_ = tx.Commit()
	}
	_ = c.Ping(ctx)
}

func prepared(ctx context.Context, c mysqlConn, query string) {
	stmt, err := c.PrepareContext(ctx, query)
	if err != nil {
		return
	}
	defer stmt.Close() //nolint:errcheck // there is no server
	if stmt.NumInput() > 100 {
		return
	}
	args := make([]driver.NamedValue, stmt.NumInput())
	for i := range args {
		args[i] = driver.NamedValue{Ordinal: i + 1, Value: int64(i)}
	}
	for range 2 {
		rows, err := stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
		readAll(rows, err)
	}
	if query == "DO ?" { // executing a query with rows can hang on MariaDB: the driver waits for columns that are not sent
		_, _ = stmt.(driver.StmtExecContext).ExecContext(ctx, args)
	}
}

func readAll(rows driver.Rows, err error) {
	if err != nil {
		return
	}
	defer rows.Close() //nolint:errcheck // there is no server
	for {
		values := make([]driver.Value, len(rows.Columns()))
		for rows.Next(values) == nil {
			continue
		}
		next, ok := rows.(driver.RowsNextResultSet)
		if !ok || !next.HasNextResultSet() || next.NextResultSet() != nil {
			return
		}
	}
}

// mysqlSessions returns the turns of MariaDB 10.11 in conversations of
// converse, one conversation per line.
func mysqlSessions(t testing.TB) (sessions [][]byte) {
	t.Helper()
	file, err := os.ReadFile("testdata/mysql_sessions.hex")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(file)) {
		session, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, session)
	}
	return sessions
}

// mysqlAnswers returns turns of packets without headers: a result of every
// column type as text and as binary, and prepared statements.
func mysqlAnswers() [][]byte {
	const ok, okEOF, eof = "\x07\x00\x00\x00\x02\x00\x00\x00", "\x07\xfe\x00\x00\x02\x00\x00\x00", "\x05\xfe\x00\x00\x02\x00"
	column := func(kind byte, flags byte) string {
		return "\x17\x03def\x00\x00\x00\x01a\x00" + "\x0c\x3f\x00\x0a\x00\x00\x00" + string([]byte{kind, flags, 0, 0, 0, 0})
	}
	packet := func(p string) string { return string([]byte{byte(len(p))}) + p }
	turn := func(packets ...string) string {
		all := strings.Join(packets, "")
		return string([]byte{byte(len(all)), byte(len(all) >> 8)}) + all
	}
	text := func(kind byte, value string) string {
		return turn("\x01\x01", column(kind, 0), packet(string([]byte{byte(len(value))})+value), okEOF)
	}
	binaryOf := func(kind byte, value string) string {
		head := "\x0c\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"
		rows := turn("\x01\x01", column(kind, 0x20), packet("\x00\x00"+value), okEOF)
		return text(3, "1") + turn(head, column(kind, 0x20)) + rows + rows + rows + turn(ok)
	}
	seeds := []string{
		text(3, "1"), text(8, "18446744073709551615"), text(12, "2024-01-01 00:00:00"), text(5, "1.5"), text(253, "abc"),
		turn("\x01\x01", column(3, 0), eof, "\x02\x011", eof), turn(ok), turn("\x09\xff\x10\x04#08004"),
		turn("\x02\x01\x01", column(3, 0), "\x02\x011", okEOF), turn("\x02\x01\x00", "\x02\x011", okEOF),
		turn("\x07\x00\x00\x00\x0a\x00\x00\x00", "\x01\x01", column(3, 0), "\x02\x011", okEOF),
		binaryOf(1, "\x01"), binaryOf(2, "\x01\x00"), binaryOf(3, "\x01\x00\x00\x00"), binaryOf(8, "\x01\x00\x00\x00\x00\x00\x00\x00"),
		binaryOf(4, "\x00\x00\x00\x00"), binaryOf(12, "\x07\xe8\x07\x01\x01\x00\x00\x00"), binaryOf(11, "\x08\x00\x00\x00\x00\x00\x00\x00\x00"),
		binaryOf(253, "\x03abc"), binaryOf(6, ""),
	}
	out := make([][]byte, len(seeds))
	for i, s := range seeds {
		out[i] = []byte(s)
	}
	return out
}

// TestMySQLSessionsInPieces replays real conversations and checks that they
// pass the screen, wherever the network splits them.
func TestMySQLSessionsInPieces(t *testing.T) {
	t.Parallel()
	for i, session := range mysqlSessions(t) {
		for _, mode := range []byte{0, fuzzBytes} {
			conn := &scriptConn{mode: mode, turns: session, turn: true}
			begin := time.Now()
			converse(conn)
			if len(conn.turns) != 0 {
				t.Errorf("session %d, mode %d: %d bytes were not read after %v", i, mode, len(conn.turns), time.Since(begin))
			}
		}
	}
}
