package tenantdb_test

import (
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/georgysavva/scany/v2/pgxscan"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// A fuzzed PostgreSQL server sends data each time that the client has written.
// In the input, that is a length, of two bytes, and as many bytes. With
// pgFramed the bytes are messages: each is a kind, the length of its body, of
// two bytes, and its body. A mutation of one message therefore does not break
// all others.
const (
	pgFramed  byte = 1 << iota
	pgAdmits       // it accepts the log-in first, which is not part of the input
	pgTrickle      // the client reads one byte at a time
)

// replay is the connection to a fuzzed server.
type replay struct {
	net.Conn            // nil: no other method is called
	mu       sync.Mutex // a COPY writes while it reads
	mode     byte
	script   []byte
	pending  []byte
}

func newReplay(input []byte) *replay {
	r := &replay{}
	if len(input) > 0 {
		r.mode, r.script = input[0], input[1:]
	}
	return r
}

func (r *replay) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mode&pgAdmits != 0 {
		r.mode &^= pgAdmits
		r.pending = admission()
		return len(p), nil
	}
	part, rest := cutPart(r.script)
	r.script = rest
	if r.mode&pgFramed != 0 {
		part = framed(part)
	}
	r.pending = append(r.pending, part...)
	return len(p), nil
}

func (r *replay) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pending) == 0 {
		return 0, io.EOF
	}
	if r.mode&pgTrickle != 0 {
		p = p[:1]
	}
	n := copy(p, r.pending)
	r.pending = r.pending[n:]
	return n, nil
}

func (*replay) Close() error                     { return nil }
func (*replay) SetDeadline(time.Time) error      { return nil }
func (*replay) SetReadDeadline(time.Time) error  { return nil }
func (*replay) SetWriteDeadline(time.Time) error { return nil }
func (*replay) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5432} }

// cutPart returns the part after a length of two bytes, and the rest.
func cutPart(p []byte) (part, rest []byte) {
	if len(p) < 2 {
		return nil, nil
	}
	n := min(int(binary.BigEndian.Uint16(p)), len(p)-2)
	return p[2 : 2+n], p[2+n:]
}

func framed(p []byte) (out []byte) {
	for len(p) > 0 {
		kind := p[0]
		var body []byte
		body, p = cutPart(p[1:])
		out = append(out, kind)
		out = binary.BigEndian.AppendUint32(out, uint32(len(body)+4))
		out = append(out, body...)
	}
	return out
}

func admission() (out []byte) {
	for _, m := range []pgproto3.BackendMessage{
		&pgproto3.AuthenticationOk{}, &pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"},
		&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte("key!")}, &pgproto3.ReadyForQuery{TxStatus: 'I'},
	} {
		out, _ = m.Encode(out) // Encode cannot fail here
	}
	return out
}

// everyType is a row of all types that are read from stores' databases.
type everyType struct {
	ID    stoa.StoreID    `db:"id"`
	Name  string          `db:"name"`
	Big   int64           `db:"big"`
	Small int             `db:"small"`
	OK    bool            `db:"ok"`
	At    time.Time       `db:"at"`
	Maybe *time.Time      `db:"maybe"`
	None  *string         `db:"none"`
	Doc   json.RawMessage `db:"doc"`
	Null  sql.NullString  `db:"nothing"`
	Bytes []byte          `db:"bytes"`
	Share float64         `db:"share"`
	Exact float64         `db:"exact"`
}

const (
	everyTypeTable = `CREATE TEMPORARY TABLE every_type (id uuid, name varchar(200), big bigint, small integer, ok boolean, at timestamptz,
		maybe timestamptz, none text, doc jsonb, nothing text, bytes bytea, share double precision, exact numeric(30,10))`
	everyTypeInsert = `INSERT INTO every_type VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 12345.6789)`
	everyTypeSelect = `SELECT id, name, big, small, ok, at, maybe, none, doc, nothing, bytes, share, exact FROM every_type WHERE id = $1 AND name = $2 AND at <= $3`
)

// useEverything calls the driver as this package does, without recovering from
// panics. It returns the errors.
func useEverything(ctx context.Context, pool *sql.DB) (failed []error) {
	db := sqlx.NewDb(pool, "pgx")
	note := func(err error) {
		if err != nil {
			failed = append(failed, err)
		}
	}
	native := func(op func(*pgx.Conn) error) {
		conn, err := db.Conn(ctx)
		if err != nil {
			note(err)
			return
		}
		defer conn.Close() //nolint:errcheck // it goes back to the pool
		note(conn.Raw(func(c any) error { return op(c.(*stdlib.Conn).Conn()) }))
	}
	exec := func(query string, args ...any) {
		_, err := db.ExecContext(ctx, query, args...)
		note(err)
	}
	id, at := stoa.StoreID{1, 2, 3}, time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	native(func(c *pgx.Conn) error { return c.Ping(ctx) })
	exec(everyTypeTable)
	exec(everyTypeInsert, id, "a name", int64(1)<<40, 7, true, at, at, nil, json.RawMessage(`{"a":1}`), nil, []byte{0, 1}, 0.5)
	for range 2 { // the second time it is prepared
		native(func(c *pgx.Conn) error { return pgxscan.Get(ctx, c, new(everyType), everyTypeSelect, id, "a name", at) })
	}
	native(func(c *pgx.Conn) error { return pgxscan.Get(ctx, c, new(int64), `SELECT count(*) FROM every_type`) })
	copyIn := func(rows string) {
		native(func(c *pgx.Conn) error {
			_, err := c.PgConn().CopyFrom(ctx, strings.NewReader(rows), `COPY every_type (small, nothing) FROM STDIN`)
			return err
		})
	}
	copyIn("8\t\\N\n9\t" + strings.Repeat("x", 150_000) + "\n") // several messages
	copyIn("not a number\t\\N\n")
	native(func(c *pgx.Conn) error {
		_, err := c.PgConn().CopyTo(ctx, io.Discard, screen.CopyOut(`SELECT id, doc FROM every_type`))
		return err
	})
	note(db.SelectContext(ctx, new([]everyType), everyTypeSelect, id, "a name", at))
	note(db.SelectContext(ctx, new([]string), `SELECT name FROM every_type WHERE small = $1`, 7))
	note(db.GetContext(ctx, new(time.Time), `SELECT at FROM every_type`))
	if tx, err := db.BeginTxx(ctx, nil); err == nil {
		_, err = tx.ExecContext(ctx, `UPDATE every_type SET name = $1 WHERE id = $2`, "another", id)
		note(err)
		note(tx.GetContext(ctx, new(everyType), everyTypeSelect, id, "another", at))
		_, err = tx.ExecContext(ctx, `SELECT no_such_column FROM every_type WHERE ok = $1`, true)
		note(err) // the transaction has failed and is over
		note(tx.Rollback())
	}
	exec(`SELECT 1; SELECT 'two', 2; DO $$BEGIN RAISE NOTICE 'three'; END$$; DROP TABLE every_type`)
	return failed
}

// FuzzPostgresScreen checks that the driver can read everything that the screen
// lets through: it does not panic, and it ends.
func FuzzPostgresScreen(f *testing.F) {
	f.Add([]byte{})
	f.Add(append([]byte{pgAdmits, 0, 6}, "Z\x00\x00\x00\x05I"...))
	c := credential.Credentials{
		Engine: credential.PostgreSQL, Host: "127.0.0.1", Port: 5432, Database: "d", User: "u", Password: keyring.NewSecret("p"), TLS: credential.TLSDisable,
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		var dials atomic.Int64
		pool := tenantdb.ScreenedPool(c, func(context.Context, string, string) (net.Conn, error) {
			if dials.Add(1) > 1 { // a second server would send the same
				return nil, io.EOF
			}
			return newReplay(input), nil
		})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		useEverything(ctx, pool)
		if ctx.Err() != nil {
			t.Error("it does not end")
		}
		_ = pool.Close()
	})
}
