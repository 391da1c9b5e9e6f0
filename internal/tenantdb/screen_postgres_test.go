package tenantdb_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// These constants are the points at which a hostile server begins its attack.
const (
	atStartup = "at startup"
	atPing    = "at a simple query"
	atPrepare = "at a preparation"
	atExecute = "at an execution"
	atCopy    = "at a COPY"
	atStream  = "at a COPY of rows to this process"
)

// attack is what a server sends at one of these points.
type attack struct {
	name, at string
	bytes    []byte
}

func u16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }
func u32(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

// header returns the beginning of a message.
func header(kind byte, length int) []byte { return append([]byte{kind}, u32(length)...) }

// repeated returns about size bytes that repeat one message.
func repeated(message []byte, size int) []byte { return bytes.Repeat(message, size/len(message)+1) }

// columnsNamed returns the body of a RowDescription that announces counted
// columns and contains there.
func columnsNamed(name string, counted, there int) []byte {
	return slices.Concat(u16(counted), bytes.Repeat(slices.Concat([]byte(name), make([]byte, 1+18)), there))
}

func postgresAttacks() []attack {
	ok, selected := encoded(&pgproto3.AuthenticationOk{}), encoded(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
	prepared := encoded(&pgproto3.ParseComplete{}, &pgproto3.ParameterDescription{})
	described := encoded(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{column("n", int4OID, 0)}})
	copied := encoded(&pgproto3.CommandComplete{CommandTag: []byte("COPY 1")})
	ready, bound := encoded(readyIdle), encoded(&pgproto3.BindComplete{})
	row := encoded(&pgproto3.DataRow{Values: [][]byte{{0, 0, 0, 1}}})
	status := func(name string, size int) []byte {
		return encoded(&pgproto3.ParameterStatus{Name: name, Value: strings.Repeat("x", size)})
	}
	var names []byte
	for i := range 100 {
		names = append(names, status(fmt.Sprint("name-", i), 1)...)
	}
	join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	streamHead := join(frame('H', []byte{1}, u16(0)), frame('d', []byte(copySignature), make([]byte, 8)))
	return []attack{
		{"nothing of the protocol", atStartup, []byte("HTTP/1.1 400 Bad Request\r\n\r\n")},
		{"an unknown message", atStartup, frame('?', []byte("x"))},
		{"a length of zero", atStartup, header('R', 0)},
		{"a length of three", atStartup, header('R', 3)},
		{"a length of four gigabytes", atStartup, header('R', math.MaxUint32)},
		{"a negative length", atStartup, header('N', 0x80000000)},
		{"an authentication message of a megabyte", atStartup, header('R', 1<<20)},
		{"an unknown authentication", atStartup, frame('R', u32(99))},
		{"an authentication without a code", atStartup, frame('R', []byte{0, 0})},
		{"a challenge that was not asked for", atStartup, frame('R', u32(11), []byte("r=x,s=AAAA,i=4096"))},
		{"a final message of SCRAM at first", atStartup, frame('R', u32(12), []byte("v=x"))},
		{"two requests for md5 passwords", atStartup, join(frame('R', u32(5), []byte("salt")), frame('R', u32(5), []byte("salt")))},
		{"mechanisms without an end", atStartup, frame('R', u32(10), []byte("SCRAM-SHA-256"))},
		{"a thousand mechanisms", atStartup, frame('R', u32(10), repeated([]byte("x\x00"), 2000), []byte{0})},
		{"ready before it let us in", atStartup, ready},
		{"ready in an unknown state", atStartup, join(ok, frame('Z', []byte("?")))},
		{"two keys", atStartup, join(ok, repeated(frame('K', make([]byte, 8)), 20))},
		{"a key of a megabyte", atStartup, join(ok, header('K', 1<<20))},
		{"another version of the protocol", atStartup, frame('v', u32(0), u32(1<<30))},
		{"a row", atStartup, join(ok, row)},
		{"a function's result", atStartup, join(ok, frame('V', u32(4), u32(1)))},
		{"too many parameters", atStartup, join(ok, names)},
		{"a parameter of 60 MB", atStartup, join(ok, header('S', 60<<20))},
		{"30 MB of parameters", atStartup, join(ok, repeated(status("x", 8000), 30<<20))},
		{"30 MB of notices", atStartup, join(ok, repeated(encoded(&pgproto3.NoticeResponse{Message: strings.Repeat("x", 8000)}), 30<<20))},
		{"an error without an end", atStartup, frame('E', []byte("Mx"))},
		{"an error of one byte", atStartup, frame('E', []byte("M"))},
		{"an error of 60 MB", atStartup, header('E', 60<<20)},

		{"ready and nothing else", atPing, ready},
		{"ready twice", atPing, join(encoded(&pgproto3.EmptyQueryResponse{}), ready, ready)},
		{"ready in the middle of a result", atPing, join(described, ready, ready)},
		{"a row without its columns", atPing, join(row, selected, ready)},
		{"columns twice", atPing, join(described, described, selected, ready)},
		{"more columns than there can be", atPing, frame('T', columnsNamed("n", 1665, 1665))},
		{"65535 columns", atPing, frame('T', columnsNamed("", 65535, 10))},
		{"fewer columns than counted", atPing, frame('T', columnsNamed("n", 3, 2))},
		{"more columns than counted", atPing, frame('T', columnsNamed("n", 2, 3))},
		{"a column without an end", atPing, frame('T', u16(1), []byte("name"))},
		{"a column in an unknown format", atPing, frame('T', u16(1), []byte("n\x00"), make([]byte, 16), u16(7))},
		{"names of a megabyte", atPing, header('T', 1<<20)},
		{"data to copy in", atPing, frame('G', []byte{1}, u16(0))},
		{"data to copy out", atPing, join(frame('H', []byte{0}, u16(0)), frame('d', []byte("x")), frame('c'), selected, ready)},
		{"data to copy both ways", atPing, frame('W', []byte{0}, u16(65535))},
		{"a suspended portal", atPing, join(described, frame('s'), ready)},
		{"authentication anew", atPing, ok},
		{"a key", atPing, frame('K', make([]byte, 8))},
		{"a tag without an end", atPing, frame('C', []byte("SELECT 1"))},
		{"a tag of a megabyte", atPing, header('C', 1<<20)},
		{"a parameter without a value", atPing, frame('S', []byte("x\x00"))},
		{"a notification without a text", atPing, frame('A', u32(1), []byte("x\x00"))},
		{"a notification with more than a text", atPing, frame('A', u32(1), []byte("x\x00y\x00z\x00"))},
		{"30 MB of notifications", atPing, repeated(encoded(&pgproto3.NotificationResponse{Channel: "c", Payload: strings.Repeat("x", 8000)}), 30<<20)},
		{"a million short notices", atPing, repeated(frame('N', []byte{0}), 6<<20)},
		{"30 MB of parameters", atPing, repeated(status("x", 8000), 30<<20)},

		{"another statement's answer", atPrepare, join(bound, selected, ready)},
		{"no parameters", atPrepare, join(encoded(&pgproto3.ParseComplete{}), described, ready)},
		{"fewer parameters than counted", atPrepare, join(encoded(&pgproto3.ParseComplete{}), frame('t', u16(3), u32(20)))},
		{"more parameters than counted", atPrepare, join(encoded(&pgproto3.ParseComplete{}), frame('t', u16(0), u32(20)))},
		{"parameters of a thousand types", atPrepare, join(encoded(&pgproto3.ParseComplete{}), thousandTypes())},
		{"columns twice", atPrepare, join(prepared, described, described, ready)},
		{"a row", atPrepare, join(prepared, described, row, ready)},
		{"ready before the columns", atPrepare, join(prepared, ready)},

		{"more columns than described", atExecute, join(bound, frame('D', u16(2), u32(0), u32(0)))},
		{"fewer columns than described", atExecute, join(bound, frame('D', u16(0)))},
		{"65535 columns", atExecute, join(bound, frame('D', u16(65535), make([]byte, 1000)))},
		{"a field beyond the row's end", atExecute, join(bound, frame('D', u16(1), u32(100), []byte("x")))},
		{"a field of two gigabytes", atExecute, join(bound, frame('D', u16(1), u32(math.MaxInt32), []byte("x")))},
		{"a field of length -2", atExecute, join(bound, frame('D', u16(1), u32(math.MaxUint32-1)))},
		{"bytes after the last field", atExecute, join(bound, frame('D', u16(1), u32(1), []byte("xyz")))},
		{"a row of one byte", atExecute, join(bound, header('D', 5))},
		{"a row of four gigabytes", atExecute, join(bound, header('D', math.MaxUint32))},
		{"columns that were not asked for", atExecute, join(bound, described, row)},
		{"two results", atExecute, join(bound, row, selected, row)},
		{"no end of the rows", atExecute, join(bound, row, ready)},
		{"another preparation's answer", atExecute, join(encoded(&pgproto3.ParseComplete{}), bound)},
		{"an error and then a result", atExecute, join(encoded(&pgproto3.ErrorResponse{Code: "22000"}), bound, row, selected, ready)},

		{"an end before the rows", atCopy, join(frame('G', []byte{1}, u16(0)), copied, ready)},
		{"an end and no beginning", atCopy, join(copied, ready)},
		{"ready and nothing else", atCopy, ready},
		{"two beginnings", atCopy, join(frame('G', []byte{1}, u16(0)), frame('G', []byte{1}, u16(0)))},
		{"fewer columns than counted", atCopy, frame('G', []byte{1}, u16(2), u16(0))},
		{"65535 columns", atCopy, frame('G', []byte{1}, u16(65535), make([]byte, 2*65535))},
		{"another format", atCopy, frame('G', []byte{0}, u16(0))},
		{"data to copy out", atCopy, join(frame('H', []byte{0}, u16(0)), frame('d', []byte("x")), frame('c'), copied, ready)},
		{"a row", atCopy, join(described, row, selected, ready)},
		{"30 MB of notices", atCopy, join(frame('G', []byte{1}, u16(0)), repeated(encoded(&pgproto3.NoticeResponse{Message: strings.Repeat("x", 8000)}), 30<<20))},
		{"nothing but an end", atStream, join(copied, ready)},
		{"data to copy in", atStream, frame('G', []byte{1}, u16(0))},
		{"rows as text", atStream, join(frame('H', []byte{0}, u16(0)), frame('d', []byte("1\n")), frame('c'), copied, ready)},
		{"65535 columns", atStream, frame('H', []byte{1}, u16(65535), make([]byte, 2*65535))},
		{"rows before their beginning", atStream, frame('d', []byte("x"))},
		{"an end in the middle", atStream, join(streamHead, copied, ready)},
		{"a row of a query", atStream, join(streamHead, row)},
		{"two ends", atStream, join(streamHead, frame('d', streamEnd), frame('c'), frame('c'))},
		{"data after the end", atStream, join(streamHead, frame('d', streamEnd), frame('c'), frame('d', streamEnd))},
		{"no trailer", atStream, join(streamHead, frame('c'), copied, ready)},
		{"no header", atStream, join(frame('H', []byte{1}, u16(0)), frame('d', []byte("PGCOPY\n\xff\r\n\x01"), make([]byte, 8)), frame('c'), copied, ready)},
		{"a header with flags", atStream, join(frame('H', []byte{1}, u16(0)), frame('d', []byte(copySignature), u32(1), u32(0)), frame('c'), copied, ready)},
		{"two columns for one", atStream, join(streamHead, frame('d', u16(2), u32(0), u32(0)), frame('d', streamEnd), frame('c'), copied, ready)},
		{"65535 columns for one", atStream, join(streamHead, frame('d', u16(65534), make([]byte, 1000)), frame('c'), copied, ready)},
		{"a negative length", atStream, join(streamHead, frame('d', u16(1), u32(-2)), frame('d', streamEnd), frame('c'), copied, ready)},
		{"half a row", atStream, join(streamHead, frame('d', u16(1), u32(math.MaxInt32), []byte("x")), frame('c'), copied, ready)},
		{"a row after the trailer", atStream, join(streamHead, frame('d', streamEnd, u16(1), u32(0)), frame('c'), copied, ready)},
		{"30 MB of notices", atStream, join(streamHead, repeated(encoded(&pgproto3.NoticeResponse{Message: strings.Repeat("x", 8000)}), 30<<20))},
		{"an error and then an end", atCopy, join(encoded(&pgproto3.ErrorResponse{Code: "22000"}), copied, ready)},
	}
}

func thousandTypes() []byte {
	body := u16(1000)
	for i := range 1000 {
		body = append(body, u32(100_000+i)...)
	}
	return frame('t', body)
}

// copySignature begins rows of COPY in binary format; streamEnd ends them.
const copySignature = "PGCOPY\n\xff\r\n\x00"

var streamEnd = u16(-1)

// readStream reads a table of one column as a stream, and returns its number of rows.
func readStream(ctx context.Context, db *tenantdb.DB) (rows int, err error) {
	err = db.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
		_, err := s.Stream(ctx, "t", []tenantdb.StreamColumn{{Name: "n", Type: tenantdb.TypeInteger}}, "", func(row tenantdb.StreamRow) error {
			rows++
			return nil
		})
		return err
	})
	return rows, err
}

// TestLongRows checks that a row of more than an answer is content that its owner can correct
// only if rows were asked for and a PostgreSQL server can send that much.
func TestLongRows(t *testing.T) {
	t.Parallel()
	bound := encoded(&pgproto3.BindComplete{})
	for name, test := range map[string]struct {
		attack

		code stoa.Code
	}{
		"asked for":        {attack{at: atExecute, bytes: slices.Concat(bound, header('D', 1<<30))}, stoa.DatabaseContentInvalid},
		"not asked for":    {attack{at: atPrepare, bytes: header('D', 1<<30)}, stoa.DatabaseUnreachable},
		"more than a row":  {attack{at: atExecute, bytes: slices.Concat(bound, header('D', 1<<30+4))}, stoa.DatabaseUnreachable},
		"before a session": {attack{at: atStartup, bytes: header('D', 1<<30)}, stoa.DatabaseUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n int
			err := tenantdbtest.Open(t, postgresAt(t, false, test.script())).Get(t.Context(), &n, `SELECT n FROM t`)
			if stoa.CodeOf(err) != test.code {
				t.Errorf("got %v, want %s", err, test.code)
			}
		})
	}
}

// TestStreamLimits has a server stream rows: any number of them may come, several in a message,
// but each must be in one message that is no longer than an answer.
func TestStreamLimits(t *testing.T) { //nolint:paralleltest // it counts this process's memory
	copied := encoded(&pgproto3.CommandComplete{CommandTag: []byte("COPY 1")}, readyIdle)
	row := slices.Concat(u16(1), u32(1<<20), make([]byte, 1<<20))
	pieces := slices.Concat([]byte(copySignature), make([]byte, 8), u16(1), u32(4), []byte("1234"), u16(1), u32(-1), streamEnd)
	var bytewise []byte
	for _, b := range pieces {
		bytewise = append(bytewise, frame('d', []byte{b})...)
	}
	head := frame('d', pieces[:len(copySignature)+8])
	for name, test := range map[string]struct {
		rows int
		code stoa.Code // "": none
		data []byte
	}{
		"one message":         {2, "", frame('d', pieces)},
		"bytewise":            {0, stoa.DatabaseUnreachable, bytewise},
		"40 MiB":              {40, "", slices.Concat(head, bytes.Repeat(frame('d', row), 40), frame('d', streamEnd))},
		"a message of 9 MiB":  {0, stoa.DatabaseContentInvalid, slices.Concat(head, frame('d', u16(1), u32(9<<20), make([]byte, 9<<20)))},
		"a row in 20 MiB":     {0, stoa.DatabaseUnreachable, slices.Concat(head, frame('d', u16(1), u32(20<<20)), bytes.Repeat(frame('d', make([]byte, 1<<20)), 20))},
		"an announced 60 MiB": {0, stoa.DatabaseContentInvalid, slices.Concat(head, header('d', 60<<20))},
	} {
		t.Run(name, func(t *testing.T) { //nolint:paralleltest // as above
			a := attack{name, atStream, slices.Concat(frame('H', []byte{1}, u16(0)), test.data, frame('c'), copied)}
			db := tenantdbtest.Open(t, postgresAt(t, true, a.script()))
			testkit.Must(t, db.Ping(t.Context()))
			allocated := allocations()
			rows, err := readStream(t.Context(), db)
			allocated = allocations() - allocated
			if rows != test.rows || stoa.CodeOf(err) != test.code && (test.code != "" || err != nil) {
				t.Errorf("%d rows, %v", rows, err)
			}
			if allocated > 8*screen.MaxAnswer { // of a row that comes in pieces
				t.Errorf("%d MiB were allocated", allocated>>20)
			}
		})
	}
}

// script returns a server that works until the point of the attack.
func (a attack) script() postgresScript {
	s := postgresScript{answer: one}
	if a.at == atStartup {
		s.startup = a.bytes
		return s
	}
	s.answer = func(request []pgproto3.FrontendMessage) []byte {
		now := atPing
		switch {
		case is[*pgproto3.Parse](request):
			now = atPrepare
		case is[*pgproto3.Bind](request):
			now = atExecute
		case isCopy(request) && strings.HasPrefix(request[0].(*pgproto3.Query).String, "COPY ("):
			now = atStream
		case isCopy(request):
			now = atCopy
		}
		if now == a.at {
			return a.bytes
		}
		return one(request)
	}
	return s
}

// endlessRows are those of a COPY that never ends.
type endlessRows struct{}

func (endlessRows) Read(p []byte) (int, error) { return copy(p, "1\n"), nil }

// TestHostilePostgres checks that if a server sends what its protocol does not
// allow, or more than a connection accepts, its owner gets a clear error and
// the platform uses almost no resources.
func TestHostilePostgres(t *testing.T) { //nolint:paralleltest // it counts this process's memory and goroutines
	for _, encrypted := range []bool{false, true} {
		for _, a := range postgresAttacks() {
			t.Run(fmt.Sprintf("%s %s tls=%v", a.name, a.at, encrypted), func(t *testing.T) { //nolint:paralleltest // see above
				most := uint64(2 << 20) // bytes allocated
				if len(a.bytes) > 1<<20 {
					most = 4 * screen.MaxAsideBytes // the driver reads some of it, in parts that it does not keep
				}
				before := runtime.NumGoroutine()
				c := postgresAt(t, encrypted, a.script())
				m := newManager(t)
				db, err := m.OpenUnleased(c)
				testkit.Must(t, err)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				if a.at != atStartup && a.at != atPing {
					testkit.Must(t, db.Ping(ctx))
				}
				allocated := allocations()
				switch a.at {
				case atStartup, atPing:
					err = db.Ping(ctx)
				case atCopy:
					err = db.CopyIn(ctx, "t", []tenantdb.StreamColumn{{Name: "n", Type: tenantdb.TypeInteger}}, func([]uint32) io.Reader { return endlessRows{} })
				case atStream:
					_, err = readStream(ctx, db)
				default:
					var n int
					err = db.Get(ctx, &n, `SELECT 1`)
				}
				allocated = allocations() - allocated
				checkFault(t, err, stoa.DatabaseUnreachable, c)
				if !strings.Contains(err.Error(), "does not speak the protocol correctly") {
					t.Errorf("got %v", err)
				}
				if tenantdb.IsTransient(err) {
					t.Error("it would be tried again")
				}
				if allocated > most {
					t.Errorf("%d kB were allocated", allocated>>10)
				}
				testkit.Must(t, db.Close())
				testkit.Must(t, m.Close(ctx))
				testkit.Eventually(t, testkit.Timeout, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+3 }) // the test's own server: a listener and the goroutine that accepts
			})
		}
	}
}

func newManager(t *testing.T) *tenantdb.Manager {
	t.Helper()
	return tenantdb.NewManager(nil, nil, tenantdb.Options{Dialer: dial.Dialer{Allow: dial.Loopback}})
}

func allocations() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// heap returns the number of bytes in use after a garbage collection.
func heap() int64 {
	runtime.GC()
	runtime.GC() // the second collection empties what sync.Pool has kept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestPostgresConnectionKeepsNothing checks that everything that a server may
// send in addition to its answers, however often, leaves no memory in use on a
// connection that stays open.
func TestPostgresConnectionKeepsNothing(t *testing.T) { //nolint:paralleltest // it measures this process's memory
	const requests, most = 40, 2 << 20
	asides := map[string]func(int) []byte{
		"parameters": func(i int) []byte {
			return repeated(encoded(&pgproto3.ParameterStatus{Name: fmt.Sprint("name", i%8), Value: strings.Repeat(fmt.Sprint(i), 3000)}), 3<<20)
		},
		"notifications": func(i int) []byte {
			return repeated(encoded(&pgproto3.NotificationResponse{Channel: fmt.Sprint(i), Payload: strings.Repeat("x", 8000)}), 3<<20)
		},
		"notices": func(i int) []byte {
			return repeated(encoded(&pgproto3.NoticeResponse{Message: strings.Repeat(fmt.Sprint(i), 3000)}), 3<<20)
		},
		"names of columns and types": func(i int) []byte { return nil },
	}
	for name, aside := range asides {
		t.Run(name, func(t *testing.T) { //nolint:paralleltest // see above
			asked := 0
			c := postgresAt(t, false, postgresScript{answer: func(request []pgproto3.FrontendMessage) []byte {
				asked++
				if name == "names of columns and types" && is[*pgproto3.Parse](request) {
					return slices.Concat(encoded(&pgproto3.ParseComplete{}, &pgproto3.ParameterDescription{ParameterOIDs: []uint32{uint32(asked % 200)}}),
						frame('T', columnsNamed(fmt.Sprint("a-long-name-", asked), 1600, 1600)), encoded(readyIdle))
				}
				return append(aside(asked), one(request)...)
			}})
			db := tenantdbtest.Open(t, c)
			testkit.Must(t, db.Ping(t.Context()))
			before := heap()
			for i := range requests {
				if name == "names of columns and types" {
					var n int // cannot be read: the row has one column
					if err := db.Get(t.Context(), &n, fmt.Sprintf(`SELECT %d WHERE 1 = ?`, i), 1); err == nil {
						t.Fatal("read a row of one column as one of 1600")
					}
					continue
				}
				testkit.Must(t, db.Ping(t.Context()))
			}
			if grown := heap() - before; grown > most {
				t.Errorf("%d kB more after %d requests", grown>>10, requests)
			}
		})
	}
}
