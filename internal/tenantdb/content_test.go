package tenantdb_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/ratelimit"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestUnusableContent checks that each way of reading rejects content that
// cannot be used, and that the next read works.
func TestUnusableContent(t *testing.T) {
	t.Parallel()
	type row struct {
		Text  string     `db:"t" max:"3"`
		Maybe *string    `db:"m" max:"3"`
		Time  *time.Time `db:"at"`
		Float float64    `db:"f"`
	}
	good := "SELECT 'abc' AS t, NULL AS m, NULL AS at, 1.5e0 AS f"
	onPostgres := []credential.EngineName{credential.PostgreSQL, credential.Supabase}
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		for name, c := range map[string]struct {
			query string
			bad   bool
			on    []credential.EngineName // nil: all engines
		}{
			"good":                   {query: good},
			"characters, not bytes":  {query: "SELECT 'äöü' AS t, '漢字漢' AS m, NULL AS at, 0e0 AS f"},
			"long text":              {query: "SELECT 'abcd' AS t, NULL AS m, NULL AS at, 0e0 AS f", bad: true},
			"long text in a pointer": {query: "SELECT '' AS t, 'abcd' AS m, NULL AS at, 0e0 AS f", bad: true},
			"NULL":                   {query: "SELECT NULL AS t, NULL AS m, NULL AS at, 0e0 AS f", bad: true},
			"text for a number":      {query: "SELECT '' AS t, NULL AS m, NULL AS at, 'x' AS f", bad: true},
			"another column":         {query: "SELECT '' AS t, NULL AS m, NULL AS at, 0e0 AS f, 1 AS other", bad: true},
			"NaN":                    {query: "SELECT '' AS t, NULL AS m, NULL AS at, 'NaN'::float8 AS f", bad: true, on: onPostgres},
			"infinite":               {query: "SELECT '' AS t, NULL AS m, NULL AS at, '-inf'::float8 AS f", bad: true, on: onPostgres},
			"year 9999":              {query: "SELECT '' AS t, NULL AS m, '9999-12-31 23:59:59+00'::timestamptz AS at, 0e0 AS f", on: onPostgres},
			"year 1":                 {query: "SELECT '' AS t, NULL AS m, '0001-01-02 00:00:00+00'::timestamptz AS at, 0e0 AS f", on: onPostgres},
			"year 10000":             {query: "SELECT '' AS t, NULL AS m, '10000-01-01 00:00:00+00'::timestamptz AS at, 0e0 AS f", bad: true, on: onPostgres},
			"year 0":                 {query: "SELECT '' AS t, NULL AS m, '0001-12-31 23:59:59+00 BC'::timestamptz AS at, 0e0 AS f", bad: true, on: onPostgres},
			"infinity":               {query: "SELECT '' AS t, NULL AS m, 'infinity'::timestamptz AS at, 0e0 AS f", bad: true, on: onPostgres},
		} {
			if c.on != nil && (db.Engine != credential.PostgreSQL) {
				continue
			}
			var one row
			var many []row
			for how, err := range map[string]error{
				"Get":       db.Get(t.Context(), &one, c.query),
				"Select":    db.Select(t.Context(), &many, c.query),
				"Tx.Get":    db.Tx(t.Context(), func(tx *tenantdb.Tx) error { return tx.Get(t.Context(), &one, c.query) }),
				"Tx.Select": db.Tx(t.Context(), func(tx *tenantdb.Tx) error { return tx.Select(t.Context(), &many, c.query) }),
			} {
				if bad := stoa.CodeOf(err) == stoa.DatabaseContentInvalid; bad != c.bad || !bad && err != nil {
					t.Errorf("%s, %s: %v", name, how, err)
				}
			}
			testkit.Must(t, db.Get(t.Context(), &one, good))
		}
		var rows []int
		query := `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100001) SELECT i FROM n`
		if db.Engine == credential.MySQL {
			query = `SELECT 1 FROM information_schema.columns a, information_schema.columns b LIMIT 100001`
		}
		if err := db.Select(t.Context(), &rows, query); stoa.CodeOf(err) != stoa.DatabaseContentInvalid {
			t.Errorf("%d rows are read: %v", len(rows), err)
		}
		var text string
		if err := db.Get(t.Context(), &text, `SELECT 'a'`); err != nil || text != "a" {
			t.Errorf("%q, %v", text, err)
		}
		if err := db.Get(t.Context(), &text, `SELECT 'a' WHERE 1 = 0`); !errors.Is(err, tenantdb.ErrNotFound) {
			t.Errorf("nothing found is %v", err)
		}
	})
}

// TestContentIsNoFailure checks that a store whose content is unusable, or
// whose tables were changed, stays open: its other reads and its owner's
// repairs work.
func TestContentIsNoFailure(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{})
			stores, _ := h.fleet(t, engine, 1)
			l := h.lease(t, stores[0])
			defer l.Release()
			var n int
			var text string
			for range 2 * tenantdb.TripAfter {
				for _, err := range []error{
					l.Get(t.Context(), &n, `SELECT 'x'`),
					l.Get(t.Context(), &text, `SELECT repeat('x', 256)`),
					l.Get(t.Context(), &n, `SELECT 1 FROM no_such_table`),
					l.Get(t.Context(), &n, `SELECT no_such_function(1)`),
				} {
					checkUnavailable(t, err)
					if code := tenantdb.HealthCode(err); code != stoa.DatabaseContentInvalid {
						t.Errorf("the code is %s: %v", code, err)
					}
				}
			}
			works(t, l)
		})
	}
}

// TestColumnsMapToFields checks that columns are found by their names, whatever their order
// and however often it changes, and that a column without a field is unusable content.
func TestColumnsMapToFields(t *testing.T) {
	t.Parallel()
	type pair struct {
		Name  string
		Count int `db:"how_many"`
	}
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{})
			stores, _ := h.fleet(t, engine, 1)
			l := h.lease(t, stores[0])
			defer l.Release()
			for range 2 {
				for _, query := range []string{`SELECT 'a' AS name, 2 AS how_many`, `SELECT 2 AS how_many, 'a' AS name`} {
					var got pair
					if err := l.Get(t.Context(), &got, query); err != nil || got != (pair{"a", 2}) {
						t.Errorf("%s: %+v, %v", query, got, err)
					}
				}
				for _, query := range []string{`SELECT 'a' AS name, 2 AS how_many, 3 AS another`, `SELECT 'a' AS nam, 2 AS how_many`, `SELECT 'a' AS name, 2`} {
					err := l.Get(t.Context(), new(pair), query)
					checkUnavailable(t, err)
					if code := tenantdb.HealthCode(err); code != stoa.DatabaseContentInvalid {
						t.Errorf("%s: the code is %s: %v", query, code, err)
					}
				}
			}
		})
	}
}

// TestAnswersCountAsMemory checks that the received part of an answer counts
// toward its store's share of memory while the rest is awaited, and that the
// read rows count until the request ends. A store that has used up its share
// does not count as a failing database.
func TestAnswersCountAsMemory(t *testing.T) {
	t.Parallel()
	const (
		begun = `SELECT repeat('x', 200) FROM generate_series(1, 5000) UNION ALL SELECT 'y' FROM pg_sleep(60)` // 1 MB, then nothing
		whole = `SELECT repeat('x', 200) FROM generate_series(1, 5000)`
	)
	for _, engine := range tenantdbtest.Engines() {
		if engine != credential.PostgreSQL {
			continue // this engine sends rows while it produces them
		}
		h, memory := setupMemory(t, 8<<20, 4<<20)
		stores, _ := h.fleet(t, engine, 1)
		l := h.lease(t, stores[0])
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			var rows []string
			done <- l.Select(ctx, &rows, begun)
		}()
		testkit.Eventually(t, testkit.Timeout, "the memory of the rows is counted", func() bool { return memory.Stats().Used > 1_000_000 })
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the cancelled read ends with %v", err)
		}
		testkit.Eventually(t, testkit.Timeout, "the memory is returned", func() bool { return memory.Stats().Used == 0 })

		ctx, held := memory.Reserve(t.Context())
		var rows []string
		testkit.Must(t, l.Select(ctx, &rows, whole))
		if used := memory.Stats().Used; used < 1_000_000 {
			t.Errorf("%d bytes of an answer that was read are counted", used)
		}
		for range 2 * tenantdb.TripAfter {
			err := l.Select(ctx, &rows, whole+` UNION ALL `+whole+` UNION ALL `+whole)
			checkUnavailable(t, err)
			if !tenantdb.IsBusy(err) {
				t.Errorf("above its share: %v", err)
			}
		}
		held.Release()
		if used := memory.Stats().Used; used != 0 {
			t.Errorf("%d bytes are held by nobody", used)
		}
		works(t, l)
		l.Release()
	}
}

// TestHeldAnswersAreNotReadAgain checks that a store whose answers wait for their readers is
// not asked for another one: that costs its server and this process nothing.
func TestHeldAnswersAreNotReadAgain(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.Engines() {
		if engine != credential.PostgreSQL {
			continue // a sequence counts how often the server is asked
		}
		h, memory := setupMemory(t, 8<<20, 4<<20)
		stores, _ := h.fleet(t, engine, 1)
		l := h.lease(t, stores[0])
		_, err := l.Exec(t.Context(), `CREATE SEQUENCE asked`)
		testkit.Must(t, err)
		read := func(ctx context.Context) error {
			var rows []string
			return l.Select(ctx, &rows, `WITH once AS MATERIALIZED (SELECT nextval('asked')) SELECT repeat('x', 200) FROM once, generate_series(1, 5000)`)
		}
		var refused error
		for range 10 {
			ctx, held := memory.Reserve(t.Context())
			defer held.Release()
			refused = read(ctx)
		}
		checkUnavailable(t, refused)
		if !tenantdb.IsBusy(refused) {
			t.Errorf("above its share: %v", refused)
		}
		var asked int64
		testkit.Must(t, l.Get(t.Context(), &asked, `SELECT last_value FROM asked`))
		if asked != 2 { // the second shows that there is no room for 3 MB
			t.Errorf("the server was asked %d times for an answer that fits once", asked)
		}
		works(t, l)
		l.Release()
	}
}

func setupMemory(t *testing.T, total, share int64) (*testManager, *ratelimit.ByteBudget) {
	t.Helper()
	memory := ratelimit.NewByteBudget(total, share)
	return setup(t, tenantdb.Options{Memory: memory, StatementTimeout: time.Minute}), memory
}
