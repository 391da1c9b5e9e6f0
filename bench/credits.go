package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/verify"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/webhooks"
)

// These are the target rates of the ledger, relative to the best single statement for the
// same work.
const (
	hotTarget    = 10.0
	spreadTarget = 1.5
	loneTarget   = 1.2
	toldTarget   = 0.9 // of the throughput without events
)

const (
	sideHot, sideHotBare       = "hot", "hotBare"
	sideSpread, sideSpreadBare = "spread", "spreadBare"
	sideTold, sideSpreadTold   = "told", "spreadTold"
	sideLone, sideLoneBare     = "lone", "loneBare"
	sideLoneBench              = "lonePgbench"
	sideLite, sideLiteBare     = "sqlite", "sqliteBare"
	sideHTTP                   = "http"
)

// creditsCmd measures spends: through the ledger, and by the best single statement that
// takes credits from a balance and records the spend.
type creditsCmd struct {
	common
	Stores   int           `default:"1000" help:"Stores of the spread measurement."`
	Callers  int           `default:"64" help:"Callers of the ledger at a time."`
	Clients  int           `default:"16" help:"Connections of the bare statement."`
	Rounds   int           `default:"5" help:"How often each side is measured, in turns."`
	Duration time.Duration `default:"4s" help:"Length of one round of one side."`
}

func (cmd creditsCmd) Run(ctx context.Context) (err error) {
	if cmd.Quick {
		cmd.Stores, cmd.Rounds, cmd.Duration = 50, 2, time.Second
	}
	f, err := startFleet(ctx, cmd.Postgres, fleetPlan{stores: 1, open: openEmbedded})
	if f != nil {
		defer func() { err = f.stop(ctx, err) }()
	}
	if err != nil {
		return err
	}
	b, err := openBooks(ctx, f, cmd.Stores)
	if err != nil {
		return err
	}
	defer b.close()
	if err := enrich(ctx, f, f.shops[0]); err != nil {
		return err
	}
	sides, runs := cmd.sides(b, f)
	rounds, err := takeTurns(ctx, cmd.Rounds, sides, func(ctx context.Context, s side) (result, error) {
		return runs[s.name](ctx)
	})
	if err != nil {
		return err
	}
	for name, l := range map[string]*book{"PostgreSQL": b.postgres, "SQLite": b.lite} {
		if err := l.verify(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	r := newReport("credits", sides, rounds)
	r.About = fmt.Sprintf("spends of one credit: %d callers of the ledger beside %d connections of pgbench with the single statement, %d rounds of %gs, medians",
		cmd.Callers, cmd.Clients, cmd.Rounds, cmd.Duration.Seconds())
	r.atLeast("throughput on one store, of the single statement", r.throughput(sideHot, sideHotBare), hotTarget)
	r.atLeast(fmt.Sprintf("throughput over %d stores, of the single statement", cmd.Stores), r.throughput(sideSpread, sideSpreadBare), spreadTarget)
	r.atMost("latency of a lone caller, of the single statement by the same driver", r.compare(sideLone, sideLoneBare, medianLatency), loneTarget)
	r.tell("the same, of the single statement by pgbench", r.compare(sideLone, sideLoneBench, medianLatency))
	r.atLeast("throughput on one store while its events are published, of that without", r.throughput(sideTold, sideHot), toldTarget)
	r.tell("the same over all stores", r.throughput(sideSpreadTold, sideSpread))
	r.tell("throughput on one store, on SQLite, of the single statement", r.throughput(sideLite, sideLiteBare))
	r.tell("over HTTP, all for one store", figure{Value: r.Medians[sideHTTP].Throughput, Unit: "/s"})
	r.tell("over HTTP, p99", figure{Value: inMilliseconds(r.Medians[sideHTTP].P99), Unit: " ms"})
	return r.finish(cmd.JSON)
}

func medianLatency(r result) float64 { return float64(r.P50) }

// sides returns the sides to compare, and the function that runs each.
func (cmd creditsCmd) sides(b *books, f *fleet) ([]side, map[string]func(context.Context) (result, error)) {
	pg, lite := b.postgres, b.lite
	type run = func(context.Context) (result, error)
	all := []struct {
		name, label string
		run         run
	}{
		{sideHot, "ledger, one store", func(ctx context.Context) (result, error) { return pg.spends(ctx, cmd.Callers, 1, cmd.Duration) }},
		{sideHotBare, "statement, one store", func(ctx context.Context) (result, error) {
			return pgbench(ctx, b.url, cmd.Clients, 1, cmd.Duration)
		}},
		{sideSpread, "ledger, all stores", func(ctx context.Context) (result, error) {
			return pg.spends(ctx, cmd.Callers, cmd.Stores, cmd.Duration)
		}},
		{sideSpreadBare, "statement, all stores", func(ctx context.Context) (result, error) {
			return pgbench(ctx, b.url, cmd.Clients, cmd.Stores, cmd.Duration)
		}},
		{sideTold, "ledger, one store, events published", func(ctx context.Context) (result, error) { return pg.told(ctx, cmd.Callers, 1, cmd.Duration) }},
		{sideSpreadTold, "ledger, all stores, events published", func(ctx context.Context) (result, error) {
			return pg.told(ctx, cmd.Callers, cmd.Stores, cmd.Duration)
		}},
		{sideLone, "ledger, one caller", func(ctx context.Context) (result, error) { return pg.spends(ctx, 1, 1, cmd.Duration) }},
		{sideLoneBare, "statement, one caller", func(ctx context.Context) (result, error) { return pg.statements(ctx, 1, cmd.Duration) }},
		{sideLoneBench, "statement, one client of pgbench", func(ctx context.Context) (result, error) { return pgbench(ctx, b.url, 1, 1, cmd.Duration) }},
		{sideLite, "ledger, one store, SQLite", func(ctx context.Context) (result, error) { return lite.spends(ctx, cmd.Callers, 1, cmd.Duration) }},
		{sideLiteBare, "statement, one store, SQLite", func(ctx context.Context) (result, error) {
			return lite.statements(ctx, cmd.Callers, cmd.Duration)
		}},
		{sideHTTP, "over HTTP, one store", func(ctx context.Context) (result, error) {
			return repeat(ctx, cmd.Callers, cmd.Duration, func(ctx context.Context, _ int) error { return f.owner.spend(ctx, f.shops[0].id) })
		}},
	}
	sides, runs := make([]side, len(all)), map[string]run{}
	for i, s := range all {
		sides[i], runs[s.name] = side{name: s.name, label: s.label}, s.run
	}
	return sides, runs
}

// repeat makes each caller call again and again until the time is up.
func repeat(ctx context.Context, callers int, duration time.Duration, call func(ctx context.Context, caller int) error) (result, error) {
	begin := time.Now()
	took, errs := make([][]time.Duration, callers), make([]error, callers)
	var running sync.WaitGroup
	for i := range callers {
		running.Go(func() {
			for time.Since(begin) < duration && errs[i] == nil {
				start := time.Now()
				errs[i] = call(ctx, i)
				took[i] = append(took[i], time.Since(start))
			}
		})
	}
	running.Wait()
	whole, all := time.Since(begin), slices.Concat(took...)
	if err := errors.Join(errs...); err != nil || len(all) == 0 {
		return result{}, err
	}
	slices.Sort(all)
	return result{
		Requests: len(all), Throughput: float64(len(all)) / whole.Seconds(),
		P50: median(all), P99: all[len(all)*99/100], Slowest: all[len(all)-1],
	}, nil
}

// books holds a ledger on each of the master's engines.
type books struct {
	postgres, lite *book
	url            string // URL of the first one
}

func (b *books) close() {
	b.postgres.db.Close()
	b.lite.db.Close()
}

// book is a ledger whose stores have large balances. The stores are numbered from 1.
type book struct {
	db     *masterdb.DB
	ledger *credits.Ledger
	owner  authz.Principal
}

func openBooks(ctx context.Context, f *fleet, stores int) (*books, error) {
	address, err := f.databases.create(ctx, "books")
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp(f.platform.folder, "books")
	if err != nil {
		return nil, err
	}
	b := &books{url: address}
	if b.postgres, err = openBook(ctx, address, stores); err != nil {
		return nil, err
	}
	b.lite, err = openBook(ctx, "sqlite:"+filepath.Join(folder, "books.db"), 1)
	return b, err
}

// enrich gives a store credits without the API.
func enrich(ctx context.Context, f *fleet, s shop) error {
	id, err := stoa.ParseID[stoa.StoreID](s.id)
	if err != nil {
		return err
	}
	db, err := masterdb.Open(ctx, f.master)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := credits.New(db).Grant(ctx, tx, id, riches)
		return err
	})
}

// riches is a grant that is enough for any measurement.
var riches = credits.Grant{Type: credits.TypeBonus, Amount: 1_000_000_000 * credits.Credit, IdempotencyKey: "bench"}

// storeAt returns the id of the n-th store, in a form that pgbench can compute too.
func storeAt(n int) stoa.StoreID {
	id, err := stoa.ParseID[stoa.StoreID](fmt.Sprintf("00000000-0000-7000-8000-%012d", n))
	if err != nil {
		panic(err) // cannot happen: the text has digits only
	}
	return id
}

func openBook(ctx context.Context, address string, stores int) (*book, error) {
	db, err := masterdb.Open(ctx, address)
	if err != nil {
		return nil, err
	}
	if _, err := db.Migrate(ctx); err != nil {
		return nil, err
	}
	b := &book{db: db, ledger: credits.New(db), owner: authz.Principal{UserID: stoa.NewID[stoa.UserID]()}}
	return b, db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `
			INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
			VALUES ($1, 'bench@example.com', 'x', 'A', 'B', $2, $2)`, b.owner.UserID, tx.Now)
		for n := 1; n <= stores && err == nil; n++ {
			err = b.openStore(ctx, tx, storeAt(n))
		}
		return err
	})
}

func (b *book) openStore(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	if _, err := tx.Exec(ctx, `
		INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at) VALUES ($1, $2, 'A store', 'active', $3, $4, $4)`,
		id, id.String(), b.owner.UserID, tx.Now); err != nil {
		return err
	}
	if err := authz.Grant(ctx, tx, id, b.owner.UserID, authz.Owner); err != nil {
		return err
	}
	if err := b.ledger.Open(ctx, tx, id); err != nil {
		return err
	}
	_, err := b.ledger.Grant(ctx, tx, id, riches)
	return err
}

// told is spends while a publisher writes the events of these spends, and no earlier ones.
func (b *book) told(ctx context.Context, callers, stores int, duration time.Duration) (result, error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	queue, err := jobs.New(b.db, log, jobs.Options{})
	if err != nil {
		return result{}, err
	}
	err = b.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO published_credits (store_id, seq) SELECT store_id, seq FROM credit_balances WHERE TRUE
			ON CONFLICT (store_id) DO UPDATE SET seq = excluded.seq`)
		return err
	})
	if err != nil {
		return result{}, err
	}
	followed := *b
	followed.ledger = credits.New(b.db)
	publisher := webhooks.New(b.db, followed.ledger, queue, webhooks.Options{Process: "bench", Log: log})
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { publisher.Run(ctx) })
	defer running.Wait()
	defer cancel()
	return followed.spends(ctx, callers, stores, duration)
}

// spends makes callers spend on the given number of stores through the ledger.
func (b *book) spends(ctx context.Context, callers, stores int, duration time.Duration) (result, error) {
	ids := make([]stoa.StoreID, stores)
	for i := range ids {
		ids[i] = storeAt(i + 1)
	}
	next := make([]int, callers)
	return repeat(ctx, callers, duration, func(ctx context.Context, caller int) error {
		next[caller] += 7919 // a prime, so that each caller visits all stores in its own order
		_, err := b.ledger.Spend(ctx, b.owner, ids[(caller*37+next[caller])%stores], credits.SpendRequest{Amount: credits.Credit})
		return err
	})
}

// bareSpend is the best single statement for a spend, as masterdb's engines accept it.
// singleStatement is the same for pgbench.
const bareSpend = `
	WITH paid AS (
		UPDATE credit_balances SET balance = balance - 10000, lifetime_spent = lifetime_spent + 10000, seq = seq + 1, updated_at = $3
		WHERE store_id = $1 AND balance - reserved >= 10000 RETURNING store_id, seq, balance
	)
	INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, created_at)
	SELECT $2, store_id, seq, 'spend', -10000, balance, $3 FROM paid`

// statements makes callers spend on one store by the bare statement. On PostgreSQL each
// statement is its own transaction. SQLite does not support UPDATE inside another statement
// and takes two statements in one transaction.
func (b *book) statements(ctx context.Context, callers int, duration time.Duration) (result, error) {
	return repeat(ctx, callers, duration, func(ctx context.Context, _ int) error {
		now, id := time.Now().UTC(), stoa.NewID[stoa.TransactionID]()
		if pool := b.db.Pool(); pool != nil {
			_, err := pool.Exec(ctx, bareSpend, storeAt(1), id, now)
			return err
		}
		return b.db.Tx(ctx, func(tx *masterdb.Tx) error {
			var after struct{ Seq, Balance int64 }
			err := tx.Get(ctx, &after, `
				UPDATE credit_balances SET balance = balance - 10000, lifetime_spent = lifetime_spent + 10000, seq = seq + 1, updated_at = $2
				WHERE store_id = $1 AND balance - reserved >= 10000 RETURNING seq, balance`, storeAt(1), now)
			if err != nil {
				return err
			}
			_, err = tx.Exec(ctx, `
				INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, created_at)
				VALUES ($1, $2, $3, 'spend', -10000, $4, $5)`, id, storeAt(1), after.Seq, after.Balance, now)
			return err
		})
	})
}

// verify checks that the ledger is still consistent after the measurement.
func (b *book) verify(ctx context.Context) error {
	report, err := verify.Run(ctx, b.db, nil)
	if err != nil {
		return err
	}
	for _, i := range report.Inconsistencies {
		err = errors.Join(err, errors.New(i.String()))
	}
	return err
}
