package keyrotation_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/keyrotation"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

func owner(key string) string { return "things/" + key }

var column = keyrotation.Column{Table: "things", Key: "id", Name: "secret", Owner: owner}

// The rings hold the old key alone, the new and the old key, and the new key alone.
var (
	oldKey, newKey = keyring.Generate("old"), keyring.Generate("new_1")
	before         = ring(oldKey)
	after          = ring(newKey, oldKey)
	alone          = ring(newKey)
)

func ring(specs ...keyring.Secret) *keyring.Ring {
	var parts []string
	for _, s := range specs {
		parts = append(parts, s.Reveal())
	}
	r, err := keyring.Parse(keyring.NewSecret(strings.Join(parts, ",")))
	if err != nil {
		panic(err)
	}
	return r
}

// fixture is a table of envelopes.
type fixture struct {
	*testing.T
	db *masterdb.DB
}

func each(t *testing.T, test func(fixture)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		test(newFixture(t, db))
	})
}

func newFixture(t *testing.T, db *masterdb.DB) fixture {
	b := fixture{t, db}
	kind := map[masterdb.Engine]string{masterdb.Postgres: "uuid", masterdb.SQLite: "text"}[db.Engine]
	b.exec(`CREATE TABLE things (id ` + kind + ` PRIMARY KEY, secret text)`)
	return b
}

func (b fixture) exec(query string, args ...any) {
	b.Helper()
	err := b.db.Tx(b.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(b.Context(), query, args...)
		return err
	})
	if err != nil {
		b.Error(err)
	}
}

func (b fixture) seal(r *keyring.Ring, id, plain string) string {
	b.Helper()
	envelope, err := r.Seal([]byte(plain), owner(id))
	if err != nil {
		b.Fatal(err)
	}
	return envelope
}

// fill adds n rows encrypted with the old key. The value of each row is its id.
func (b fixture) fill(n int) (ids []string) {
	b.Helper()
	for range n {
		id := uuid.NewString()
		ids = append(ids, id)
	}
	err := b.db.Tx(b.Context(), func(tx *masterdb.Tx) error {
		for _, id := range ids {
			if _, err := tx.Exec(b.Context(), `INSERT INTO things VALUES ($1, $2)`, id, b.seal(before, id, id)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return ids
}

func (b fixture) run(r *keyring.Ring) (keyrotation.Progress, []keyrotation.Lost) {
	b.Helper()
	done, lost, err := keyrotation.Run(b.Context(), b.db, r, []keyrotation.Column{column}, func(keyrotation.Progress) {})
	if err != nil {
		b.Error(err)
	}
	return done, lost
}

func (b fixture) counts() map[string]int64 {
	b.Helper()
	counts, err := keyrotation.Counts(b.Context(), b.db, []keyrotation.Column{column})
	if err != nil {
		b.Fatal(err)
	}
	out := map[string]int64{}
	for _, c := range counts {
		out[c.KeyID] += c.Rows
	}
	return out
}

// values decrypts every row.
func (b fixture) values(r *keyring.Ring) map[string]string {
	b.Helper()
	var rows []struct{ ID, Secret string }
	if err := b.db.Select(b.Context(), &rows, `SELECT CAST(id AS text) AS id, secret FROM things`); err != nil {
		b.Fatal(err)
	}
	out := map[string]string{}
	for _, row := range rows {
		plain, err := r.Open(row.Secret, owner(row.ID))
		if err != nil {
			b.Errorf("%s: %v", row.ID, err)
		}
		out[row.ID] = string(plain)
	}
	return out
}

// value decrypts one row.
func (b fixture) value(id string) string {
	b.Helper()
	var envelope string
	if err := b.db.Get(b.Context(), &envelope, `SELECT secret FROM things WHERE id = $1`, id); err != nil {
		b.Error(err)
	}
	plain, err := after.Open(envelope, owner(id))
	if err != nil {
		b.Error(err)
	}
	return string(plain)
}

func TestRun(t *testing.T) {
	t.Parallel()
	each(t, func(b fixture) {
		const n = 250 // more than two batches
		ids := b.fill(n)
		b.exec(`INSERT INTO things VALUES ($1, NULL)`, uuid.NewString())
		b.exec(`INSERT INTO things VALUES ($1, '')`, uuid.NewString())
		if got := b.counts(); !maps.Equal(got, map[string]int64{"old": n}) {
			b.Errorf("before: %v", got)
		}
		var steps []keyrotation.Progress
		done, lost, err := keyrotation.Run(b.Context(), b.db, after, []keyrotation.Column{column}, func(p keyrotation.Progress) { steps = append(steps, p) })
		if want := (keyrotation.Progress{Total: n, Done: n, Resealed: n}); err != nil || done != want || lost != nil {
			b.Errorf("%+v, %v, %v", done, lost, err)
		}
		if len(steps) != 3 || steps[0].Done != 100 || steps[2] != done {
			b.Errorf("progress %+v", steps)
		}
		if got := b.counts(); !maps.Equal(got, map[string]int64{"new_1": n}) {
			b.Errorf("after: %v", got)
		}
		b.exec(`DELETE FROM things WHERE secret IS NULL OR secret = ''`)
		values := b.values(alone)
		for _, id := range ids {
			if values[id] != id {
				b.Errorf("%s has become %s", id, values[id])
			}
		}
		if again, _ := b.run(after); again != (keyrotation.Progress{}) {
			b.Errorf("a second run: %+v", again)
		}
	})
}

// TestInterruptedRun checks that the rows of an interrupted run stay encrypted with the new
// key, and that the next run continues.
func TestInterruptedRun(t *testing.T) {
	t.Parallel()
	each(t, func(b fixture) {
		const n = 350
		b.fill(n)
		ctx, stop := context.WithCancel(b.Context())
		defer stop()
		first, _, err := keyrotation.Run(ctx, b.db, after, []keyrotation.Column{column}, func(p keyrotation.Progress) {
			if p.Done >= 200 {
				stop()
			}
		})
		if !errors.Is(err, context.Canceled) || first.Resealed != 200 {
			b.Fatalf("stopped at %+v with %v", first, err)
		}
		if got := b.counts(); !maps.Equal(got, map[string]int64{"new_1": 200, "old": 150}) {
			b.Errorf("stopped: %v", got)
		}
		b.values(after)
		if second, _ := b.run(after); second != (keyrotation.Progress{Total: 150, Done: 150, Resealed: 150}) {
			b.Errorf("then %+v", second)
		}
		b.values(alone)
	})
}

// TestConcurrentRuns checks that, of two concurrent runs, exactly one encrypts each row
// again.
func TestConcurrentRuns(t *testing.T) {
	t.Parallel()
	each(t, func(b fixture) {
		const n = 600
		b.fill(n)
		var both [2]keyrotation.Progress
		var wg sync.WaitGroup
		for i := range both {
			wg.Go(func() { both[i], _ = b.run(after) })
		}
		wg.Wait()
		if got := both[0].Resealed + both[1].Resealed; got != n {
			b.Errorf("%+v and %+v: %d rows, want %d", both[0], both[1], got, n)
		}
		b.values(alone)
	})
}

// TestBesideChanges checks that values that a server changes during a run stay as they were
// last written, whichever key the server used, and that no run fails for these changes,
// also where every transaction of the server is serializable.
func TestBesideChanges(t *testing.T) {
	t.Parallel()
	test := func(b fixture) {
		ids := b.fill(150)
		writing, stop := context.WithCancel(b.Context())
		defer stop()
		want := map[string]string{}
		for _, id := range ids {
			want[id] = id
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := 0; writing.Err() == nil; i++ {
				id, by := ids[i%4], []*keyring.Ring{before, after}[i%2]
				if got := b.value(id); got != want[id] {
					b.Errorf("%q was lost: it is %q again", want[id], got)
					return
				}
				want[id] = fmt.Sprint(i)
				b.exec(`UPDATE things SET secret = $1 WHERE id = $2`, b.seal(by, id, want[id]), id)
			}
		})
		for range 60 {
			b.run(after)
		}
		stop()
		wg.Wait()
		b.run(after)
		if diff := cmp.Diff(want, b.values(alone)); diff != "" {
			b.Errorf("values were lost:\n%s", diff)
		}
	}
	each(t, test)
	if os.Getenv(masterdbtest.PostgresEnv) == "" {
		return
	}
	t.Run("serializable", func(t *testing.T) {
		t.Parallel()
		test(newFixture(t, masterdbtest.Open(t, masterdbtest.SerializableURL(t))))
	})
}

// TestLost checks that rows that cannot be decrypted are reported and unchanged, and that
// all other rows are encrypted again.
func TestLost(t *testing.T) {
	t.Parallel()
	each(t, func(b fixture) {
		ids := b.fill(120)
		gone := ring(keyring.Generate("gone"))
		lost := map[string]string{
			ids[0]: b.seal(gone, ids[0], "x"),
			ids[1]: b.seal(before, ids[2], "x"), // copied from another row
			ids[3]: "v1.old",
			ids[4]: "plain text",
			ids[5]: "v1..",
		}
		for id, envelope := range lost {
			b.exec(`UPDATE things SET secret = $1 WHERE id = $2`, envelope, id)
		}
		done, named := b.run(after)
		if done != (keyrotation.Progress{Total: 120, Done: 120, Resealed: 115, Failed: 5}) {
			b.Errorf("%+v", done)
		}
		for _, l := range named {
			var kept string
			if err := b.db.Get(b.Context(), &kept, `SELECT secret FROM things WHERE id = $1`, l.Key); err != nil || kept != lost[l.Key] {
				b.Errorf("%s: %q, %v", l.Key, kept, err)
			}
			if unknown := errors.Is(l.Cause, keyring.ErrUnknownKey); unknown != (l.Key == ids[0]) && lost[l.Key] != "v1.." {
				b.Errorf("%s: %v", lost[l.Key], l.Cause)
			}
			delete(lost, l.Key)
		}
		if len(lost) > 0 {
			b.Errorf("not named: %v", lost)
		}
		if got := b.counts(); got["new_1"] != 115 || got["gone"] != 1 || got["old"]+got[""] != 4 {
			b.Errorf("counts %v", got)
		}
	})
}
