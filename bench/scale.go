package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// These are the targets of a platform with a hundred thousand stores.
const (
	scaleListTarget  = 200.0  // ms, the slowest page or call of the API
	scaleCLITarget   = 200.0  // ms, the slowest command
	scaleReadyTarget = 1000.0 // ms
)

// scaleShops is the number of stores that have a database. The load uses them; all others
// are rows of the master.
const scaleShops = 12

// scaleCmd measures what stores cost the master and a server, by the number of stores in the
// registry, and computes what a larger platform needs.
type scaleCmd struct {
	common
	Sizes    []int         `default:"1000,10000,100000" help:"Numbers of stores in the registry."`
	Requests int           `default:"15" help:"Requests for each list; the figure is the median."`
	Starts   int           `default:"3" help:"Starts of the server, and runs of each command, at each size; the figure is the median."`
	Idle     time.Duration `default:"70s" help:"How long an idle server is watched at each size. A sweep runs each minute."`
	Assume   assumptions   `embed:"" prefix:"assume-"`

	settle time.Duration // until PostgreSQL shows what idle sessions have counted
}

func (cmd scaleCmd) Run(ctx context.Context) error {
	cmd.settle = 11 * time.Second
	if cmd.Quick {
		cmd.Sizes, cmd.Requests, cmd.Starts, cmd.Idle, cmd.settle = []int{50, 100}, 2, 1, time.Second, 500*time.Millisecond
		cmd.Assume.SQLiteRate, cmd.Assume.PostgreSQLRate = migrateTargetSQLite, migrateTargetPostgres
	}
	if len(cmd.Sizes) < 2 {
		return errors.New("--sizes needs two numbers or more: what grows is seen between them")
	}
	if err := cmd.measureMigrations(ctx); err != nil {
		return err
	}
	sizes, err := cmd.measureSizes(ctx)
	if err != nil {
		return err
	}
	return cmd.report(sizes).finish(cmd.JSON)
}

// measureMigrations sets the rates of fleet migrations that are not given.
func (cmd *scaleCmd) measureMigrations(ctx context.Context) error {
	if cmd.Assume.SQLiteRate == 0 {
		embedded := []side{{name: sideAll, label: "SQLite"}}
		rounds, err := migrateCmd{common: cmd.common, Rounds: 2}.measure(ctx, fleetPlan{stores: 400, open: openEmbedded}, embedded)
		if err != nil {
			return err
		}
		cmd.Assume.SQLiteRate = newReport("", embedded, rounds).Medians[sideAll].Throughput
	}
	if cmd.Assume.PostgreSQLRate == 0 {
		own := []side{{name: sidePostgres, label: "PostgreSQL"}}
		rounds, err := migrateCmd{common: cmd.common, Rounds: 2}.measure(ctx, fleetPlan{stores: 60, open: openCloned, prepare: prepareTemplate}, own)
		if err != nil {
			return err
		}
		cmd.Assume.PostgreSQLRate = newReport("", own, rounds).Medians[sidePostgres].Throughput
	}
	return nil
}

// scaleSize is what was measured at one number of stores.
type scaleSize struct {
	Stores  int     `json:"stores"`
	Bytes   float64 `json:"bytes"` // of the master database
	Tables  []table `json:"tables"`
	ReadyMS float64 `json:"readyMs"`
	// LaggingReadyMS is the time until the server is ready when all stores have an older
	// schema, as after an upgrade.
	LaggingReadyMS float64             `json:"laggingReadyMs"`
	MemoryMiB      float64             `json:"memoryMib"`     // resident, after the start
	PeakMemoryMiB  float64             `json:"peakMemoryMib"` // after the lists and the load
	Connections    map[string]int      `json:"connections"`   // to the master, by application_name
	Transactions   float64             `json:"idleTransactionsPerMinute"`
	RowsRead       float64             `json:"idleRowsReadPerMinute"`
	ScrapeMS       float64             `json:"scrapeMs"`
	Sweeps         map[string]float64  `json:"sweepsMs"` // median duration by kind of job
	Lists          []timing            `json:"lists"`
	Commands       []timing            `json:"commands"`
	Costs          map[string]*opCosts `json:"costs"` // by operation
	BackupSeconds  float64             `json:"masterBackupSeconds"`
	BackupBytes    float64             `json:"masterBackupBytes"`
}

// scaler measures one fleet that grows.
type scaler struct {
	scaleCmd
	*fleet
	browser  *http.Client
	watched  *pgxpool.Pool // of an administrator, to the master database
	private  string        // address of the private listener
	settings []string
}

func (cmd scaleCmd) measureSizes(ctx context.Context) (sizes []*scaleSize, err error) {
	s, err := cmd.startScaler(ctx)
	if s != nil && s.fleet != nil {
		defer func() {
			if s.watched != nil {
				s.watched.Close()
			}
			err = s.stop(ctx, err)
		}()
	}
	if err != nil {
		return nil, err
	}
	at := 0
	for _, n := range cmd.Sizes {
		progress("entering %d stores", n)
		s.process.stop()
		if err := fillTo(ctx, s.fleet, at, n); err != nil {
			return nil, err
		}
		at = n
		size, err := s.measure(ctx, n)
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, size)
	}
	return sizes, nil
}

func (cmd scaleCmd) startScaler(ctx context.Context) (*scaler, error) {
	s := &scaler{scaleCmd: cmd}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	s.private = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s.settings = []string{"STOA_PRIVATE_LISTEN=" + s.private}
	if s.fleet, err = startFleet(ctx, cmd.Postgres, fleetPlan{stores: scaleShops, open: openEmbedded, settings: s.settings}); err != nil {
		return s, err
	}
	if s.watched, err = pgxpool.New(ctx, s.databases.address(s.databases.run+"_"+master, s.databases.server.User)); err != nil {
		return s, err
	}
	for _, shop := range s.shops {
		if _, err := s.command(ctx, s.data(), "credits", "grant", shop.slug, "1000", "--reason", "bench", "--key", "bench-"+shop.slug); err != nil {
			return s, err
		}
	}
	s.browser, err = signInOperator(ctx, s.fleet)
	return s, err
}

// measure measures everything at one size. The server is stopped when it is called.
func (s *scaler) measure(ctx context.Context, n int) (*scaleSize, error) {
	size := &scaleSize{Stores: n, Sweeps: map[string]float64{}, Costs: map[string]*opCosts{}}
	began, err := s.masterTime(ctx)
	if err != nil {
		return nil, err
	}
	for _, part := range []struct {
		name    string
		measure func(context.Context, *scaleSize) error
	}{
		{"starts", s.measureStarts}, {"an idle server", s.measureIdle}, {"lists", s.measureLists}, {"commands", s.measureCommands},
		{"operations", s.measureCosts}, {"tables", s.measureTables}, {"a backup", s.measureBackup},
	} {
		progress("%d stores: %s", n, part.name)
		if err := part.measure(ctx, size); err != nil {
			return nil, fmt.Errorf("%d stores, %s: %w", n, part.name, err)
		}
	}
	if err := s.measureSweeps(ctx, size, began); err != nil {
		return nil, err
	}
	return size, s.measureLagging(ctx, size)
}

// measureStarts measures how long the server takes until it is ready.
func (s *scaler) measureStarts(ctx context.Context, size *scaleSize) error {
	var took []float64
	for i := range s.Starts {
		if i > 0 {
			s.process.stop()
		}
		begin := time.Now()
		if err := s.start(ctx, s.settings); err != nil {
			return err
		}
		took = append(took, inMS(time.Since(begin)))
		if err := wait(ctx, min(s.settle, 3*time.Second)); err != nil { // the jobs of the start
			return err
		}
	}
	size.ReadyMS = median(took)
	m, err := readMemory(s.process.pid())
	size.MemoryMiB = m.now
	return err
}

// measureLagging measures a start when all generated stores lag. The migration ends with
// the first store, whose database does not exist.
func (s *scaler) measureLagging(ctx context.Context, size *scaleSize) error {
	s.process.stop()
	const generated = ` WHERE store_id IN (SELECT id FROM stores WHERE slug LIKE 'shop-%')`
	if _, err := s.watched.Exec(ctx, `UPDATE store_databases SET schema_version = schema_version - 1`+generated); err != nil {
		return err
	}
	begin := time.Now()
	if err := s.start(ctx, s.settings); err != nil {
		return err
	}
	size.LaggingReadyMS = inMS(time.Since(begin))
	s.process.stop()
	_, err := s.watched.Exec(ctx, `UPDATE store_databases SET schema_version = schema_version + 1, migration_attempts = 0, migration_starts = 0,
		migration_error = NULL, migration_message = NULL`+generated)
	return errors.Join(err, s.start(ctx, s.settings))
}

func inMS(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// wait waits for what happens in other processes, which tell nobody.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
