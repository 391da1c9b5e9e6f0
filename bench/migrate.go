package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// These are the targets for migrations of a whole fleet, in stores per second, and for a
// deploy without new migrations.
const (
	migrateTargetSQLite   = 200
	migrateTargetPostgres = 40
	migrateTargetNothing  = 1   // in seconds
	migrateTargetLinear   = 0.8 // relative to the rate for a quarter of the fleet
)

// maxOrderSample is how many stores of one version that sample may contain, as
// 'stoa tenants migrate --help' tells.
const maxOrderSample = 5

const (
	sideNothing = "nothing"
	sideAll     = "sqliteAll"
	sideQuarter = "sqliteQuarter"
)

// migrateCmd measures 'stoa tenants migrate' with a running server: over embedded stores,
// of which all, a quarter or none lack a migration, and over PostgreSQL.
type migrateCmd struct {
	common
	SQLite     int `name:"sqlite" default:"1000" help:"Stores on SQLite files."`
	PostgreSQL int `name:"postgresql" default:"200" help:"Stores on PostgreSQL databases of their own."`
	Rounds     int `default:"3" help:"How often each is measured, in turns."`
}

func (cmd migrateCmd) Run(ctx context.Context) error {
	if cmd.Quick {
		cmd.SQLite, cmd.PostgreSQL, cmd.Rounds = 40, 8, 2
	}
	embedded := []side{
		{name: sideNothing, label: "SQLite, none lags"},
		{name: sideQuarter, label: "SQLite, a quarter lags"},
		{name: sideAll, label: "SQLite, all lag"},
	}
	own := []side{{name: sidePostgres, label: "PostgreSQL, all lag"}}
	rounds, err := cmd.measure(ctx, fleetPlan{stores: cmd.SQLite, open: openEmbedded}, embedded)
	if err != nil {
		return err
	}
	more, err := cmd.measure(ctx, fleetPlan{stores: cmd.PostgreSQL, open: openCloned, prepare: prepareTemplate}, own)
	if err != nil {
		return err
	}
	for i := range rounds {
		rounds[i][sidePostgres] = more[i][sidePostgres]
	}
	return cmd.report(rounds, append(embedded, own...)).finish(cmd.JSON)
}

func (cmd migrateCmd) report(rounds []round, sides []side) *report {
	r := newReport("migrate", sides, rounds)
	r.About = fmt.Sprintf("stoa tenants migrate over %d SQLite and %d PostgreSQL stores, one migration that lags, %d rounds, medians; "+
		"throughput of the whole command, latencies of single stores", cmd.SQLite, cmd.PostgreSQL, cmd.Rounds)
	nothing := float64(cmd.SQLite) / r.Medians[sideNothing].Throughput
	r.atMost("nothing to migrate", figure{Value: nothing, Unit: " s"}, migrateTargetNothing)
	r.atLeast("SQLite", figure{Value: r.Medians[sideAll].Throughput, Unit: " stores/s"}, migrateTargetSQLite)
	r.atLeast("PostgreSQL", figure{Value: r.Medians[sidePostgres].Throughput, Unit: " stores/s"}, migrateTargetPostgres)
	r.atLeast("rate when all lag, to that when a quarter does", r.throughput(sideAll, sideQuarter), migrateTargetLinear)
	return r
}

func (cmd migrateCmd) measure(ctx context.Context, plan fleetPlan, sides []side) (rounds []round, err error) {
	f, err := startFleet(ctx, cmd.Postgres, plan)
	if f != nil {
		defer func() { err = f.stop(ctx, err) }()
	}
	if err != nil {
		return nil, err
	}
	m := &migrator{fleet: f, own: filepath.Join(f.folder, "migrations")}
	return takeTurns(ctx, cmd.Rounds, sides, m.turn)
}

// migrator adds one migration at a time to a fleet.
type migrator struct {
	*fleet
	own     string // folder of the operator's migrations
	version int
}

// add writes a migration that no store has.
func (m *migrator) add() error {
	m.version++
	for _, dialect := range []string{"sqlite", "postgres"} {
		folder := filepath.Join(m.own, dialect)
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
		sql := fmt.Sprintf("-- +goose Up\nCREATE TABLE bench_%d (id text PRIMARY KEY, note text NOT NULL);\n", m.version)
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%05d_bench.sql", m.version)), []byte(sql), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (m *migrator) turn(ctx context.Context, s side) (result, error) {
	if s.name == sideNothing {
		return m.nothing(ctx)
	}
	if err := m.add(); err != nil {
		return result{}, err
	}
	lag := len(m.shops)
	if m.template.name != "" { // the template was made from a store, which counts too
		lag++
	}
	if s.name == sideQuarter {
		lag /= 4
		if _, err := m.migrate(ctx, m.data(), len(m.shops)-lag, m.shops[lag:]...); err != nil {
			return result{}, err
		}
	}
	return m.migrate(ctx, m.data(), lag)
}

// nothing runs the command over a fleet that is up to date, with a data directory that
// holds the keys only, so that no store can be reached. Every database that the command
// opens is a new file there: those of the sample whose versions it reads to check the order
// of the operator's migrations, and no other.
func (m *migrator) nothing(ctx context.Context) (result, error) {
	if m.version == 0 { // once, so that there is a migration to be up to date with
		if err := m.add(); err != nil {
			return result{}, err
		}
	}
	if err := m.catchUp(ctx); err != nil {
		return result{}, err
	}
	bare, err := os.MkdirTemp(m.folder, "bare-")
	if err != nil {
		return result{}, err
	}
	keys, err := os.ReadFile(filepath.Join(m.data(), keysName))
	if err != nil {
		return result{}, err
	}
	if err := os.WriteFile(filepath.Join(bare, keysName), keys, 0o600); err != nil { //nolint:gosec // a folder of this program
		return result{}, err
	}
	res, err := m.migrate(ctx, bare, 0)
	if err != nil {
		return res, err
	}
	opened, err := filepath.Glob(filepath.Join(bare, "stores", "*", "*.db"))
	if err != nil {
		return res, err
	}
	if len(opened) > maxOrderSample {
		return res, fmt.Errorf("%d stores were opened though none lags; the check of the order needs at most %d", len(opened), maxOrderSample)
	}
	res.Requests, res.Throughput = len(m.shops), float64(len(m.shops))/res.Slowest.Seconds()
	return res, nil
}

func (m *migrator) catchUp(ctx context.Context) error {
	_, err := m.command(ctx, m.data(), "tenants", "migrate", "--json", "--tenant-migrations", m.own)
	return err
}

// migrate runs the command over the given stores, or over all, and checks that it migrated
// the expected number.
func (m *migrator) migrate(ctx context.Context, data string, want int, only ...shop) (result, error) {
	args := []string{"tenants", "migrate", "--json", "--tenant-migrations", m.own}
	for _, s := range only {
		args = append(args, "--store", s.id)
	}
	start := time.Now()
	lines, err := m.command(ctx, data, args...)
	whole := time.Since(start)
	if err != nil {
		return result{}, err
	}
	outcome, err := readMigration(lines)
	if err != nil {
		return result{}, err
	}
	if outcome.migrated != want || outcome.lagging != want {
		return result{}, fmt.Errorf("%d stores lagged and %d were migrated, want %d", outcome.lagging, outcome.migrated, want)
	}
	if want == 0 {
		return result{P50: whole, P99: whole, Slowest: whole}, nil
	}
	slices.Sort(outcome.took)
	return result{
		Requests: want, Throughput: float64(want) / whole.Seconds(),
		P50: median(outcome.took), P99: outcome.took[want*99/100], Slowest: outcome.took[want-1],
	}, nil
}
