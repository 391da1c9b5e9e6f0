package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// These are the targets of archives.
const (
	archiveTarget         = 0.8  // of the tools' throughput
	archiveSQLiteTarget   = 5.0  // seconds for 100 MB
	archivePostgresTarget = 30.0 // seconds for 100 MB
	archiveHeapTarget     = 64.0 // MiB, whatever the size
)

// archiveCmd measures archives of one store on each engine: their writing beside the
// engine's dump tool and their loading beside its restore tool. The tools' output goes
// through the same compression, by zstd in a process of its own.
type archiveCmd struct {
	common
	MySQL   string `required:"" name:"mysql" env:"STOA_TEST_MYSQL_URL" help:"A MariaDB or MySQL where this may make databases and users; they are dropped at the end." placeholder:"URL"`
	MB      int    `name:"mb" default:"100" help:"Size of the store, in millions of bytes of its rows."`
	Rounds  int    `default:"5" help:"How often each side is measured, in turns."`
	Engine  string `default:"" enum:",postgresql,mysql,sqlite" help:"Only this engine."`
	Profile string `help:"Folder for CPU profiles of the archives." type:"existingdir"`
	NoTools bool   `name:"no-tools" help:"Measure without the engines' tools and without warming up: for the memory that a large store takes."`
}

// archiveSide is one side: what is done on which engine, by what.
type archiveSide struct {
	side
	engine credential.EngineName
	load   bool
	tool   bool
}

func (cmd archiveCmd) sides() (sides []archiveSide) {
	for _, s := range []struct {
		engine        credential.EngineName
		name          string
		dump, restore string // tools; "" without one
	}{
		{credential.PostgreSQL, "PostgreSQL", "pg_dump -Fc", "pg_restore"},
		{credential.MySQL, "MariaDB", "mariadb-dump", "mariadb"},
		{credential.SQLite, "SQLite", "", ""},
	} {
		if cmd.Engine != "" && cmd.Engine != string(s.engine) {
			continue
		}
		for _, load := range []bool{false, true} {
			tool, what := s.dump, "write"
			if load {
				tool, what = s.restore, "load"
			}
			sides = append(sides, archiveSide{side{name: string(s.engine) + "-" + what, label: "stoa, " + s.name + ", " + what}, s.engine, load, false})
			if tool != "" && !cmd.NoTools {
				sides = append(sides, archiveSide{side{name: string(s.engine) + "-" + what + "-tool", label: tool + " and zstd"}, s.engine, load, true})
			}
		}
	}
	return sides
}

// archiveBench is one run: the sources, and what the process took in each turn.
type archiveBench struct {
	archiveCmd
	store      stoa.StoreID
	key        *age.X25519Identity
	folder     string
	postgres   *databases
	mysql      *mysqlDatabases
	sources    map[credential.EngineName]string // addresses
	made       int
	rows       int64
	bytes      int64
	heap, rss  map[string]int64           // most, in bytes, by side
	comparison map[string][]time.Duration // by side
}

func (cmd archiveCmd) Run(ctx context.Context) (err error) {
	if cmd.Quick {
		cmd.MB, cmd.Rounds = 5, 1
	}
	b := &archiveBench{archiveCmd: cmd, store: stoa.NewID[stoa.StoreID](), heap: map[string]int64{}, rss: map[string]int64{},
		sources: map[credential.EngineName]string{}, comparison: map[string][]time.Duration{}}
	defer func() { err = b.cleanUp(ctx, err) }()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	byName, sides := map[string]archiveSide{}, []side{}
	for _, s := range b.sides() {
		byName[s.name], sides = s, append(sides, s.side)
	}
	rounds, err := takeTurns(ctx, cmd.Rounds, sides, func(ctx context.Context, s side) (result, error) { return b.turn(ctx, byName[s.name]) })
	if err != nil {
		return err
	}
	return b.report(sides, rounds).finish(cmd.JSON)
}

func (b *archiveBench) report(sides []side, rounds []round) *report {
	r := newReport("archive", sides, rounds)
	r.About = fmt.Sprintf("a store of %d MB in %d rows, throughput in rows, %d rounds, medians", b.bytes/1e6, b.rows, b.Rounds)
	for _, s := range b.sides() {
		if s.tool {
			of := s.name[:len(s.name)-len("-tool")]
			r.atLeast(of+", throughput to "+s.label, r.throughput(of, s.name), archiveTarget)
		}
	}
	for _, s := range []struct {
		name   string
		target float64
	}{{"sqlite-load", archiveSQLiteTarget}, {"postgresql-load", archivePostgresTarget}} {
		if _, measured := r.Medians[s.name]; !measured {
			continue
		}
		perSize := r.Medians[s.name].P50.Seconds() * 100e6 / float64(b.bytes)
		r.atMost(s.name+" with its comparison, for 100 MB", figure{Value: perSize, Unit: " s"}, s.target)
	}
	for _, s := range b.sides() {
		if s.tool {
			continue
		}
		r.atMost(s.name+", heap of the process", figure{Value: float64(b.heap[s.name]) / (1 << 20), Unit: " MiB"}, archiveHeapTarget)
		r.tell(s.name+", resident memory of the process", figure{Value: float64(b.rss[s.name]) / (1 << 20), Unit: " MiB"})
		if s.load {
			r.tell(s.name+", of which the comparison takes", figure{Value: inMilliseconds(median(b.comparison[s.name])) / 1000, Unit: " s"})
		}
	}
	return r
}

// prepare fills the PostgreSQL store. Its archive becomes the other engines' stores.
func (b *archiveBench) prepare(ctx context.Context) (err error) {
	if b.folder, err = os.MkdirTemp("", "stoa-bench-"); err != nil {
		return err
	}
	if b.key, err = age.GenerateX25519Identity(); err != nil {
		return err
	}
	if b.postgres, err = openDatabases(ctx, b.Postgres); err != nil {
		return err
	}
	if b.mysql, err = openMySQLDatabases(b.MySQL, b.postgres.run); err != nil {
		return err
	}
	progress("filling a store with %d MB", b.MB)
	if b.sources[credential.PostgreSQL], err = b.create(ctx, credential.PostgreSQL); err != nil {
		return err
	}
	if err := b.fill(ctx); err != nil {
		return err
	}
	for _, s := range b.sides() {
		if s.load && !s.tool && s.engine != credential.PostgreSQL {
			if b.sources[s.engine], err = b.create(ctx, s.engine); err != nil {
				return err
			}
			progress("warming up: %s", s.label)
			if _, err := b.work(ctx, s, b.file(archiveSide{engine: credential.PostgreSQL}), b.sources[s.engine]); err != nil {
				return err
			}
		}
	}
	for _, s := range b.sides() { // the files that are loaded, in the first turn too
		if !s.load && !b.NoTools {
			progress("warming up: %s", s.label)
			if _, err := b.turn(ctx, s); err != nil {
				return err
			}
		}
	}
	clear(b.heap)
	clear(b.rss)
	return nil
}

// fill fills the PostgreSQL source and writes its archive.
func (b *archiveBench) fill(ctx context.Context) error {
	address := b.sources[credential.PostgreSQL]
	db, err := archiveJob{Engine: credential.PostgreSQL, Address: address}.open()
	if err != nil {
		return err
	}
	_, err = db.Migrate(ctx)
	_ = db.Close() // nothing is pending
	if err != nil {
		return err
	}
	if err := fillShop(ctx, address, int64(b.MB)*1e6); err != nil {
		return err
	}
	if b.NoTools && b.Engine == string(credential.PostgreSQL) {
		return nil // its first turn writes it
	}
	s := archiveSide{engine: credential.PostgreSQL}
	w, err := b.work(ctx, s, b.file(s), address)
	b.rows, b.bytes = w.Rows, w.Bytes
	return err
}

// create returns the address of a new, empty database.
func (b *archiveBench) create(ctx context.Context, engine credential.EngineName) (string, error) {
	b.made++
	name := fmt.Sprintf("a%d", b.made)
	switch engine { //nolint:exhaustive // Supabase is PostgreSQL
	case credential.PostgreSQL:
		return b.postgres.create(ctx, name)
	case credential.MySQL:
		return b.mysql.create(ctx, name)
	}
	folder := filepath.Join(b.folder, name)
	return folder, os.Mkdir(folder, 0o700)
}

func (b *archiveBench) drop(ctx context.Context, engine credential.EngineName, address string) error {
	switch engine { //nolint:exhaustive // Supabase is PostgreSQL
	case credential.PostgreSQL:
		return b.postgres.drop(ctx, address)
	case credential.MySQL:
		return b.mysql.drop(ctx, address)
	}
	return os.RemoveAll(address)
}

// file is where a side's archive or dump is.
func (b *archiveBench) file(s archiveSide) string {
	name := string(s.engine) + ".stoa"
	if s.tool {
		name = string(s.engine) + ".dump.zst"
	}
	return filepath.Join(b.folder, name)
}

// turn dumps the source, or restores it into a new database.
func (b *archiveBench) turn(ctx context.Context, s archiveSide) (result, error) {
	address := b.sources[s.engine]
	if s.load {
		var err error
		if address, err = b.create(ctx, s.engine); err != nil {
			return result{}, err
		}
		defer b.drop(context.WithoutCancel(ctx), s.engine, address) //nolint:errcheck // dropped again at the end
	}
	var took time.Duration
	if s.tool {
		begin := time.Now()
		if err := runTool(ctx, s, b.file(s), address); err != nil {
			return result{}, err
		}
		took = time.Since(begin)
	} else {
		w, err := b.work(ctx, s, b.file(s), address)
		if err != nil {
			return result{}, err
		}
		b.heap[s.name], b.rss[s.name] = max(b.heap[s.name], w.HeapBytes), max(b.rss[s.name], w.Resident)
		b.comparison[s.name] = append(b.comparison[s.name], w.Compared)
		took, b.rows, b.bytes = w.took, w.Rows, w.Bytes
	}
	return result{Requests: int(b.rows), Throughput: float64(b.rows) / took.Seconds(), P50: took, P99: took, Slowest: took}, nil
}

func (b *archiveBench) work(ctx context.Context, s archiveSide, file, address string) (archiveWork, error) {
	profile := ""
	if b.Profile != "" && s.name != "" {
		profile = filepath.Join(b.Profile, s.name+".pprof")
	}
	return runArchiveJob(ctx, archiveJob{Load: s.load, Engine: s.engine, Address: address, Folder: address, Store: b.store, File: file, Key: b.key.String()}, profile)
}

func (b *archiveBench) cleanUp(ctx context.Context, why error) error {
	errs := []error{why}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if b.mysql != nil {
		errs = append(errs, b.mysql.dropAll(ctx))
	}
	if b.postgres != nil {
		errs = append(errs, b.postgres.dropAll(ctx))
	}
	if b.folder != "" {
		errs = append(errs, os.RemoveAll(b.folder))
	}
	return errors.Join(errs...)
}
