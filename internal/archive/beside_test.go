package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// blockOfTen is the number of the rows of blocksOfRows that make a block.
const blockOfTen = 10

func besideID(n int) string { return fmt.Sprintf("018f2b6c-7d1e-7c3a-9f00-%012d", n) }

// besideTables are two tables of the same columns.
var besideTables = func() []Table {
	first := everyType
	first.Name = "firsts"
	return []Table{first, everyType}
}()

// blocksOfRows returns an archive of the table firsts with one row, and of the table samples in
// whole blocks of ten rows. change is called with each of these.
func blocksOfRows(t *testing.T, id *age.X25519Identity, blocks int, change func(n int, row []any)) []byte {
	t.Helper()
	head := sampleHead()
	head.Tables = besideTables
	var b bytes.Buffer
	w, err := NewWriter(&b, head, id.Recipient())
	testkit.Must(t, err)
	words := strings.Repeat("0123456789", blockSize/10/blockOfTen)
	testkit.Must(t, w.Row([]any{besideID(0), nil, "the only row", nil, nil, nil, nil, nil, nil}))
	_, err = w.EndTable()
	testkit.Must(t, err)
	for n := range blocks * blockOfTen {
		row := []any{besideID(n), nil, words, nil, nil, nil, nil, nil, nil}
		change(n, row)
		testkit.Must(t, w.Row(row))
	}
	_, err = w.EndTable()
	testkit.Must(t, err)
	_, err = w.Close()
	testkit.Must(t, err)
	return b.Bytes()
}

// besideLoad loads an archive of samples into a database of PostgreSQL. begun is called before
// the first row.
func besideLoad(ctx context.Context, t *testing.T, db *tenantdb.DB, file []byte, id *age.X25519Identity, opts LoadOptions, begun func()) error {
	t.Helper()
	_, err := db.Migrate(t.Context())
	testkit.Must(t, err)
	ddl := samplesDDL[credential.PostgreSQL]
	exec(t, db, ddl)
	exec(t, db, strings.ReplaceAll(ddl, "samples", "firsts"))
	r, err := NewReader(bytes.NewReader(file), ReadOptions{}, id)
	testkit.Must(t, err)
	defer r.Close()
	opts.tables = besideTables
	l := loader{db: db, head: r.Head, opts: opts}
	defer l.stop()
	testkit.Must(t, l.prepare(t.Context()))
	begun()
	if err := l.parts(ctx, r); err != nil {
		return err
	}
	return l.finish(ctx)
}

func needsPostgres(t *testing.T) {
	t.Helper()
	if !slices.Contains(tenantdbtest.Engines(), credential.PostgreSQL) {
		testkit.Unavailable(t, tenantdbtest.PostgresEnv+" is not set")
	}
}

// lockTable keeps others from using a table.
func lockTable(t *testing.T, database, table, mode string) (release func()) {
	t.Helper()
	at, err := url.Parse(os.Getenv(tenantdbtest.PostgresEnv))
	testkit.Must(t, err)
	at.Path = "/" + database
	conn, err := pgx.Connect(t.Context(), at.String())
	testkit.Must(t, err)
	_, err = conn.Exec(t.Context(), "BEGIN; LOCK TABLE "+table+" IN "+mode+" MODE")
	testkit.Must(t, err)
	return func() { _ = conn.Close(context.WithoutCancel(t.Context())) }
}

// TestBlocksBesideEachOther loads several blocks of one table where the server gives as many
// connections as it takes, and where it gives no more than one beside that of the comparison,
// which is still reading the table before.
func TestBlocksBesideEachOther(t *testing.T) {
	t.Parallel()
	needsPostgres(t)
	id := newIdentity(t)
	const blocks = 8
	file := blocksOfRows(t, id, blocks, func(int, []any) {})
	for limit, writers := range map[int]int{2: 1, 5: 2} {
		t.Run(fmt.Sprintf("%d connections", limit), func(t *testing.T) {
			t.Parallel()
			c := tenantdbtest.Create(t, credential.PostgreSQL)
			db := tenantdbtest.Open(t, c)
			admin := tenantdbtest.Postgres(t)
			sessions := func(condition string) (n int) {
				testkit.Must(t, admin.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND `+condition, c.User).Scan(&n))
				return n
			}
			var rows int64
			var others sync.WaitGroup
			releaseFirsts := func() {}
			err := besideLoad(t.Context(), t, db, file, id, LoadOptions{OnRows: func(n int64) {
				if rows += n; rows == 1 {
					releaseFirsts = lockTable(t, c.Database, "firsts", "ACCESS EXCLUSIVE")
				}
				if rows != 1+blockOfTen {
					return
				}
				release := lockTable(t, c.Database, "samples", "EXCLUSIVE") // the next blocks wait until all have begun
				others.Go(func() {
					defer release()
					const waiting = `wait_event_type = 'Lock' AND query LIKE 'COPY samples%'`
					for deadline := time.Now().Add(testkit.Timeout); sessions(waiting) != writers; <-time.After(time.Millisecond) {
						if time.Now().After(deadline) {
							t.Errorf("%d connections wait, want %d", sessions(waiting), writers)
							return
						}
					}
				})
			}, OnTable: func(sum Summary) error {
				if sum.Table == "samples" {
					releaseFirsts()
					return nil
				}
				testkit.Eventually(t, testkit.Timeout, "the comparison waits", func() bool { return sessions(`wait_event_type = 'Lock'`) == 1 })
				return nil
			}}, func() {
				db.LimitConnections(1)
				testkit.Eventually(t, testkit.Timeout, "one connection is left", func() bool { return sessions(`true`) <= 1 })
				db.LimitConnections(10)
				tenantdbtest.Admin(t, credential.PostgreSQL, fmt.Sprintf(`ALTER ROLE %q CONNECTION LIMIT %d`, c.User, limit))
			})
			testkit.Must(t, err)
			others.Wait()
			if rows != 1+blocks*blockOfTen {
				t.Errorf("%d rows are stored", rows)
			}
		})
	}
}

// besideLoader returns a loader for the table samples of a new database, whose next block goes
// in beside another one.
func besideLoader(t *testing.T) (credential.Credentials, *loader) {
	t.Helper()
	c := tenantdbtest.Create(t, credential.PostgreSQL)
	db := tenantdbtest.Open(t, c)
	_, err := db.Migrate(t.Context())
	testkit.Must(t, err)
	exec(t, db, samplesDDL[credential.PostgreSQL])
	return c, &loader{db: db, beside: besideWriter{next: true}}
}

// TestBlockThatGotNoConnection begins a block while others have all connections.
func TestBlockThatGotNoConnection(t *testing.T) {
	t.Parallel()
	needsPostgres(t)
	c, l := besideLoader(t)
	db := l.db
	row := []any{besideID(1), nil, nil, nil, nil, nil, nil, nil, nil}
	db.LimitConnections(1) // of those that the migration has left
	db.LimitConnections(10)
	testkit.Must(t, db.Snapshot(t.Context(), func(*tenantdb.Snapshot) error { // it has the only connection
		tenantdbtest.Admin(t, credential.PostgreSQL, fmt.Sprintf(`ALTER ROLE %q CONNECTION LIMIT 1`, c.User))
		testkit.Must(t, l.add(t.Context(), everyType, [][]any{row}))
		testkit.Eventually(t, testkit.Timeout, "no connection is given", func() bool { return l.beside.last.hasEnded() })
		return nil
	}))
	testkit.Must(t, l.settle(t.Context()))
	if got := sum(t, db, everyType); got.Rows != 1 || !l.beside.denied {
		t.Errorf("%d rows, denied: %t", got.Rows, l.beside.denied)
	}
}

// TestFaultsOfBlocksBeside loads rows that the database refuses, in each of several blocks.
func TestFaultsOfBlocksBeside(t *testing.T) {
	t.Parallel()
	needsPostgres(t)
	id := newIdentity(t)
	for block := range 4 {
		at, other := block*blockOfTen+3, (block*blockOfTen+3+2*blockOfTen)%(4*blockOfTen)
		for name, c := range map[string]struct {
			change func([]any)
			named  int
		}{
			"a value out of range":     {func(row []any) { row[6] = strings.Repeat("9", 25) + ".0000" }, at},
			"the key of another block": {func(row []any) { row[0] = besideID(other) }, other},
		} {
			t.Run(fmt.Sprintf("block %d, %s", block, name), func(t *testing.T) {
				file := blocksOfRows(t, id, 4, func(n int, row []any) {
					if n == at {
						c.change(row)
					}
				})
				err := besideLoad(t.Context(), t, tenantdbtest.Open(t, tenantdbtest.Create(t, credential.PostgreSQL)), file, id, LoadOptions{}, func() {})
				wantMessage(t, err, stoa.ArchiveRefused, "samples", "id = "+besideID(c.named))
			})
		}
	}
}

// TestLoadEndsItsBlockBeside cancels a load while two blocks are inserted. The load ends after
// both.
func TestLoadEndsItsBlockBeside(t *testing.T) {
	t.Parallel()
	needsPostgres(t)
	c, l := besideLoader(t)
	release := lockTable(t, c.Database, "samples", "EXCLUSIVE")
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	row := func(n int) [][]any { return [][]any{{besideID(n), nil, nil, nil, nil, nil, nil, nil, nil}} }
	testkit.Must(t, l.add(ctx, everyType, row(1)))
	block := l.beside.last
	admin := tenantdbtest.Postgres(t)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		defer cancel()
		for deadline := time.Now().Add(testkit.Timeout); time.Now().Before(deadline); <-time.After(time.Millisecond) {
			var n int
			err := admin.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'`, c.User).Scan(&n)
			if err != nil || n == 2 {
				return
			}
		}
	})
	if err := l.add(ctx, everyType, row(2)); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	waiting.Wait()
	l.stop()
	if !block.hasEnded() || l.beside.last != nil {
		t.Error("a block is still being inserted")
	}
}
