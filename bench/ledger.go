package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/jackc/pgx/v5"
)

const transactionsPath = "/api/credits/transactions"

// These are the targets for a store with nearly all rows of a large ledger: its balance and its
// first page of transactions, as a share of those of a store with no more than the page, and the
// rows that a verification reads in a second.
const (
	ledgerReadsTarget  = 0.9
	ledgerVerifyTarget = 300_000
)

const (
	sideBalanceFew, sideBalanceMany = "balanceFew", "balanceMany"
	sidePageFew, sidePageMany       = "pageFew", "pageMany"
)

// ledgerCmd measures reads of a large ledger, and its verification. Two stores have full pages of
// transactions: one has no more than its page, the other one has all others.
type ledgerCmd struct {
	common
	Rows     int           `default:"10000000" help:"Transactions in the ledger; 10 million take 5 GB."`
	Page     int           `default:"20" help:"Transactions on the page."`
	Rounds   int           `default:"5" help:"How often each side is measured, in turns, and the ledger verified."`
	Duration time.Duration `default:"3s" help:"Length of one round of one side."`
	WarmUp   time.Duration `default:"3s" help:"Load on each side before it is measured."`
}

func (cmd ledgerCmd) Run(ctx context.Context) (err error) {
	if cmd.Quick {
		cmd.Rows, cmd.Rounds, cmd.Duration, cmd.WarmUp = 100_000, 2, time.Second, time.Second
	}
	f, err := startFleet(ctx, cmd.Postgres, fleetPlan{stores: 2, open: openEmbedded})
	if f != nil {
		defer func() { err = f.stop(ctx, err) }()
	}
	if err != nil {
		return err
	}
	for i, rows := range []int{cmd.Page, cmd.Rows - cmd.Page} {
		if err := enrich(ctx, f, f.shops[i]); err != nil {
			return err
		}
		progress("entering %d transactions", rows)
		if err := enterTransactions(ctx, f, f.shops[i], rows); err != nil {
			return err
		}
	}
	sides := []side{
		cmd.side(f, sideBalanceFew, "balance, few rows", balancePath+"?storeId=", 0, `"balance":`),
		cmd.side(f, sideBalanceMany, "balance, many rows", balancePath+"?storeId=", 1, `"balance":`),
		cmd.side(f, sidePageFew, "page, few rows", cmd.pagePath(), 0, `"data":`),
		cmd.side(f, sidePageMany, "page, many rows", cmd.pagePath(), 1, `"data":`),
	}
	if err := warmUp(ctx, sides); err != nil {
		return err
	}
	rounds, err := takeTurns(ctx, cmd.Rounds, sides, runSide)
	if err != nil {
		return err
	}
	perSecond, err := cmd.verify(ctx, f)
	if err != nil {
		return err
	}
	r := newReport("ledger", sides, rounds)
	r.About = fmt.Sprintf("%d transactions, all but %d of one store, %d connections of load, %d rounds of %gs, medians", cmd.Rows, cmd.Page, cmd.Connections, cmd.Rounds, cmd.Duration.Seconds())
	r.atLeast("balance of the store with many, of that with few", r.throughput(sideBalanceMany, sideBalanceFew), ledgerReadsTarget)
	r.atLeast("first page of the store with many, of that with few", r.throughput(sidePageMany, sidePageFew), ledgerReadsTarget)
	r.atLeast("rows verified, with the start of the command", figure{Value: perSecond, Unit: "/s"}, ledgerVerifyTarget)
	return r.finish(cmd.JSON)
}

func (cmd ledgerCmd) pagePath() string {
	return fmt.Sprintf("%s?limit=%d&storeId=", transactionsPath, cmd.Page)
}

// side asks for one store's balance or page. path ends before the store's id.
func (cmd ledgerCmd) side(f *fleet, name, label, path string, store int, marker string) side {
	t := target{Host: "localhost", Path: path + f.shops[store].id, Marker: marker, Token: f.owner.token}
	return side{name, label, cmd.WarmUp, job{Address: f.address, Connections: cmd.Connections, Duration: cmd.Duration, Draw: goRound, Targets: []target{t}}}
}

// enterTransactions gives a store that was enriched more spends, until it has n transactions. It
// writes as an administrator: foreign keys need not be checked for each row.
func enterTransactions(ctx context.Context, f *fleet, s shop, n int) error {
	conn, err := pgx.Connect(ctx, f.databases.address(f.databases.run+"_"+master, f.databases.server.User))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the rows are committed
	for _, statement := range []string{
		`SET session_replication_role = replica`,
		fillFunctions,
		fmt.Sprintf(`INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, service_key, quantity, unit_price, user_id, created_at)
			SELECT pg_temp.id('%[1]s', k, 0), b.store_id, k, 'spend', -10000, b.balance - (k - 1) * 10000::bigint, 'product_import', 1, 10000, u.id, now()
			FROM credit_balances b, (SELECT id FROM users LIMIT 1) u, generate_series(2, %[2]d) k WHERE b.store_id = '%[1]s'`, s.id, n),
		fmt.Sprintf(`UPDATE credit_balances SET balance = balance - (%[2]d - 1) * 10000::bigint, lifetime_spent = (%[2]d - 1) * 10000::bigint,
			seq = %[2]d, version = %[2]d WHERE store_id = '%[1]s'`, s.id, n),
		fmt.Sprintf(`INSERT INTO published_credits (store_id, seq) VALUES ('%s', %d) ON CONFLICT (store_id) DO UPDATE SET seq = excluded.seq`, s.id, n),
		// The store's own database is taken to have its copies, so that no job makes them meanwhile.
		fmt.Sprintf(`INSERT INTO credit_copies (store_id, version) VALUES ('%s', %d) ON CONFLICT (store_id) DO UPDATE SET version = excluded.version`, s.id, n),
		`VACUUM ANALYZE credit_transactions, credit_balances`,
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%.60s: %w", statement, err)
		}
	}
	return nil
}

// verify returns how many transactions 'stoa credits verify' reads in a second, the median
// over the rounds.
func (cmd ledgerCmd) verify(ctx context.Context, f *fleet) (perSecond float64, err error) {
	var figures []float64
	for i := range cmd.Rounds {
		var found struct {
			OK           bool
			Transactions float64
		}
		begin := time.Now()
		verify := exec.CommandContext(ctx, f.binary, "credits", "verify", "--json") //nolint:gosec // built by this program
		verify.Dir, verify.Env = f.folder, f.environment(f.data())
		out, err := verify.Output()
		took := time.Since(begin).Seconds()
		if ended := (*exec.ExitError)(nil); errors.As(err, &ended) {
			return 0, fmt.Errorf("stoa credits verify: %w: %.500s%s", err, out, ended.Stderr)
		}
		if err := errors.Join(err, json.Unmarshal(out, &found)); err != nil {
			return 0, err
		}
		if !found.OK || found.Transactions < float64(cmd.Rows) {
			return 0, fmt.Errorf("stoa credits verify: %s", out)
		}
		figures = append(figures, found.Transactions/took)
		progress("verification %d of %d: %.0f rows/s", i+1, cmd.Rounds, found.Transactions/took)
	}
	return median(figures), nil
}
