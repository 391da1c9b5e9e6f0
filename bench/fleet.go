package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// fleet is the platform under measurement: the real binary with a PostgreSQL
// master database, one owner, and stores that each have a database of their
// own on the same server.
type fleet struct {
	address string // of the platform, host:port
	owner   *owner
	shops   []shop

	databases *databases
	folder    string
	stoa      *process
}

// shop is one store of the fleet.
type shop struct {
	id, slug    string
	host        string // as in the Host header
	databaseURL string
}

func (s shop) target() target { return target{Host: s.host, Marker: `"slug":"` + s.slug + `"`} }

// startFleet returns a fleet to stop even when it fails on the way.
func startFleet(ctx context.Context, postgres string, stores int) (*fleet, error) {
	f := &fleet{shops: make([]shop, stores)}
	var err error
	if f.folder, err = os.MkdirTemp("", "stoa-bench-"); err != nil {
		return nil, err
	}
	if f.databases, err = openDatabases(ctx, postgres); err != nil {
		return f, err
	}
	master, err := f.databases.create(ctx, "master")
	if err != nil {
		return f, err
	}
	progress("building and starting stoa")
	if err := f.serve(ctx, master); err != nil {
		return f, err
	}
	if f.owner, err = register(ctx, f.address); err != nil {
		return f, err
	}
	var ready atomic.Int32
	return f, inParallel(ctx, stores, func(ctx context.Context, i int) (err error) {
		f.shops[i], err = f.open(ctx, fmt.Sprintf("bench-%03d", i+1))
		if n := ready.Add(1); err == nil && (n%10 == 0 || int(n) == stores) {
			progress("%d of %d stores are ready", n, stores)
		}
		return err
	})
}

// open makes a database and a store on it.
func (f *fleet) open(ctx context.Context, slug string) (shop, error) {
	databaseURL, err := f.databases.create(ctx, slug[len("bench-"):])
	if err != nil {
		return shop{}, err
	}
	s, err := f.owner.openStore(ctx, slug, databaseURL)
	s.databaseURL = databaseURL
	return s, err
}

func (f *fleet) log() string { return filepath.Join(f.folder, "stoa.log") }

// serve builds the binary and starts it as its defaults are, but for the
// places where it keeps things. It returns when the platform is ready.
func (f *fleet) serve(ctx context.Context, master string) error {
	binary := filepath.Join(f.folder, "stoa")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/stoahq/stoa/cmd/stoa") //nolint:gosec // our own folder
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	log, err := os.Create(f.log())
	if err != nil {
		return err
	}
	defer log.Close()                                                       //nolint:errcheck // the child has its own
	cmd := exec.CommandContext(context.WithoutCancel(ctx), binary, "serve") //nolint:gosec // just built
	cmd.Dir, cmd.Stdout, cmd.Stderr = f.folder, log, log
	cmd.Env = append(os.Environ(), "MASTER_DB_URL="+master, "STOA_DATA_DIR="+filepath.Join(f.folder, "data"),
		"STOA_LISTEN=127.0.0.1", "PORT="+strconv.Itoa(port), "JWT_EXPIRES_IN=12h")
	if f.stoa, err = launch(cmd); err != nil {
		return err
	}
	f.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	return f.awaitReady(ctx)
}

func (f *fleet) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := (&owner{address: f.address}).call(ctx, "GET", "/readyz", nil, nil)
		if err == nil {
			return nil
		}
		if ended := f.stoa.ended(); ended != nil {
			return ended
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("stoa was not ready in time: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// stop takes the fleet down and leaves nothing behind. After a failure it
// shows the end of the server's log first. It returns what went wrong,
// beginning with why the fleet is stopped.
func (f *fleet) stop(ctx context.Context, why error) error {
	interrupted := ctx.Err() != nil
	if interrupted { // a Ctrl-C reaches the other processes too: that they end is no news
		why = errors.New("interrupted")
	}
	progress("stopping and cleaning up")
	errs := []error{why}
	if f.stoa != nil {
		if !interrupted {
			errs = append(errs, f.stoa.ended())
		}
		f.stoa.stop()
	}
	if errors.Join(errs...) != nil && !interrupted {
		f.showLog()
	}
	if f.databases != nil { // also after Ctrl-C
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		errs = append(errs, f.databases.dropAll(ctx))
	}
	return errors.Join(append(errs, os.RemoveAll(f.folder))...)
}

func (f *fleet) showLog() {
	const most = 4 << 10
	log, err := os.ReadFile(f.log())
	if err != nil || len(log) == 0 {
		return
	}
	progress("the end of stoa's log:\n%s", log[max(0, len(log)-most):])
}

// inParallel calls fn for 0 … n-1, four at a time, and stops at the first
// error.
func inParallel(ctx context.Context, n int, fn func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var running sync.WaitGroup
	for range 4 {
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
