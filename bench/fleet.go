package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// fleet is the platform under measurement: the real binary with a PostgreSQL master
// database, one owner, and stores that each have their own database.
type fleet struct {
	*platform
	owner *owner
	shops []shop

	databases *databases
	template  template // for openCloned
	folder    string

	opened atomic.Int32 // number of stores created beyond the shops
}

// fleetPlan describes the fleet to create.
type fleetPlan struct {
	stores   int
	open     opener
	settings []string // settings of the platform beside its defaults: NAME=value
	prepare  func(context.Context, *fleet) error
}

// budget returns the setting that limits the platform's connections to a server.
func budget(n int) []string { return []string{fmt.Sprintf("STOA_CONNECTIONS_PER_SERVER=%d", n)} }

// shop is one store of the fleet.
type shop struct {
	id, slug    string
	host        string // value of the Host header
	databaseURL string
}

func (s shop) target() target { return target{Host: s.host, Marker: `"slug":"` + s.slug + `"`} }

// startFleet creates and starts a fleet. It returns a fleet to stop even if it fails.
func startFleet(ctx context.Context, postgres string, plan fleetPlan) (*fleet, error) {
	f := &fleet{shops: make([]shop, plan.stores)}
	var err error
	if f.folder, err = os.MkdirTemp("", "stoa-bench-"); err != nil {
		return nil, err
	}
	if f.databases, err = openDatabases(ctx, postgres); err != nil {
		return f, err
	}
	masterURL, err := f.databases.create(ctx, master)
	if err != nil {
		return f, err
	}
	progress("building and starting stoa")
	if f.platform, err = buildPlatform(ctx, f.folder, masterURL); err != nil {
		return f, err
	}
	if err := f.start(ctx, plan.settings); err != nil {
		return f, err
	}
	if f.owner, err = register(ctx, f.address); err != nil {
		return f, err
	}
	if plan.prepare != nil {
		if err := plan.prepare(ctx, f); err != nil {
			return f, err
		}
	}
	return f, f.openAll(ctx, plan.open)
}

func (f *fleet) openAll(ctx context.Context, open opener) error {
	var ready atomic.Int32
	stores := len(f.shops)
	step := max(10, stores/20)
	return inParallel(ctx, stores, func(ctx context.Context, i int) (err error) {
		f.shops[i], err = open(ctx, f, fmt.Sprintf("%03d", i+1))
		if n := int(ready.Add(1)); err == nil && (n%step == 0 || n == stores) {
			progress("%d of %d stores are ready", n, stores)
		}
		return err
	})
}

// opener creates a store of the given name.
type opener func(ctx context.Context, f *fleet, name string) (shop, error)

// openOwn gives the store a new database with its own role.
func openOwn(ctx context.Context, f *fleet, name string) (shop, error) {
	databaseURL, err := f.databases.create(ctx, name)
	if err != nil {
		return shop{}, err
	}
	return f.openAt(ctx, name, databaseURL, databaseURL)
}

// openAt opens a store that the platform reaches at one address and the baseline at
// another.
func (f *fleet) openAt(ctx context.Context, name, platformURL, databaseURL string) (shop, error) {
	s, err := f.owner.openStore(ctx, "bench-"+name, postgresAt(platformURL))
	s.databaseURL = databaseURL
	return s, err
}

// prepareTemplate opens one store in the ordinary way and makes a template of its database,
// for openCloned. That store is not one of the shops.
func prepareTemplate(ctx context.Context, f *fleet) error {
	s, err := openOwn(ctx, f, "origin")
	if err != nil {
		return err
	}
	f.template, err = f.databases.makeTemplate(ctx, s.databaseURL)
	return err
}

// openCloned opens a store on a copy of the template. It saves the migrations, which take
// most of the time: provisioning finds them applied.
func openCloned(ctx context.Context, f *fleet, name string) (shop, error) {
	databaseURL, err := f.databases.createFrom(ctx, f.template, name)
	if err != nil {
		return shop{}, err
	}
	return f.openAt(ctx, name, databaseURL, databaseURL)
}

// openEmbedded opens a store on a SQLite file that the platform creates.
func openEmbedded(ctx context.Context, f *fleet, name string) (shop, error) {
	return f.owner.openStore(ctx, "bench-"+name, managed())
}

// stop stops the fleet and removes everything that it created. After a failure it first
// shows the end of the server's log. It returns the errors, the first of which is why.
func (f *fleet) stop(ctx context.Context, why error) error {
	interrupted := ctx.Err() != nil
	if interrupted { // a Ctrl-C reaches the other processes too, so their end is expected
		why = errors.New("interrupted")
	}
	progress("stopping and cleaning up")
	errs := []error{why}
	if f.platform != nil && f.process != nil {
		if !interrupted {
			errs = append(errs, f.process.ended())
		}
		f.process.stop()
	}
	if errors.Join(errs...) != nil && !interrupted {
		f.showLog()
	}
	if f.databases != nil { // also after Ctrl-C
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute+time.Duration(len(f.shops))*500*time.Millisecond)
		defer cancel()
		errs = append(errs, f.databases.dropAll(ctx))
	}
	return errors.Join(append(errs, os.RemoveAll(f.folder))...)
}

func (f *fleet) showLog() {
	const most = 4 << 10
	log, err := os.ReadFile(filepath.Join(f.folder, logName))
	if err != nil || len(log) == 0 {
		return
	}
	progress("the end of stoa's log:\n%s", log[max(0, len(log)-most):])
}

// inParallel calls fn for 0 … n-1, four calls at a time, and stops at the first error.
func inParallel(ctx context.Context, n int, fn func(ctx context.Context, i int) error) error {
	return atATime(ctx, 4, n, fn)
}

// atATime is inParallel with the given number of workers.
func atATime(ctx context.Context, workers, n int, fn func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := fn(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}
