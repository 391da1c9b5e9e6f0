// Package presence detects which processes share the master database, and releases the work
// of a process that has ended, so that another process continues it.
//
// A process is present while it holds a lock that ends with it: on PostgreSQL an advisory
// lock of a session, on SQLite the lock of a file. Times are measured by the observer's own
// monotonic clock; clocks of different machines are never compared. Declaring a live
// process ended is safe: its ownership is checked again at each of its writes, and its jobs
// may run twice.
package presence

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"os"
	"sync"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
)

// Process is the presence of this process. It is safe for concurrent use after Start.
type Process struct {
	db      *masterdb.DB
	log     *slog.Logger
	name    string
	lockKey int32
	timing  timing
	lock    lock
	onGone  []func(ctx context.Context, tx *masterdb.Tx, process string) error
	joined  chan struct{} // receives when another process may have registered
	stop    context.CancelFunc
	running sync.WaitGroup
}

// registered is the topic of processes that register; its payload is their name.
const registered = "stoa_process_registered"

// lookNow ends the pause before the next look.
func (p *Process) lookNow() {
	select {
	case p.joined <- struct{}{}:
	default:
	}
}

// timing holds the times that determine how fast the end of a process is detected. A killed
// process is detected after at most grace and two looks.
type timing struct {
	look     time.Duration // between two looks at the other processes
	alone    time.Duration // between two looks while no other process is on record
	lost     time.Duration // between two looks while this process is without its lock
	beat     time.Duration // between two heartbeats while the lock is held
	grace    time.Duration // how long a process may be without its lock
	frozen   time.Duration // how long a process that holds its lock may be without a heartbeat
	careful  time.Duration // how long no process counts as ended after this process lost the master
	answer   time.Duration // how long the master may take to answer a look
	register time.Duration // how long a transaction that records an end may take
}

// timingOn returns the times for an engine. The lock of a file ends with its process
// and never before: SQLite needs no grace and no heartbeats, and a suspended process
// keeps its work.
func timingOn(engine masterdb.Engine) timing {
	if engine == masterdb.SQLite {
		return timing{look: time.Second, alone: time.Second, lost: time.Second, frozen: math.MaxInt64, answer: 3 * time.Second, register: 10 * time.Second}
	}
	return timing{
		look: time.Second, alone: 5 * time.Second, lost: 500 * time.Millisecond, beat: 2 * time.Second, grace: 2 * time.Second, frozen: 15 * time.Second,
		careful: 10 * time.Second, answer: 3 * time.Second, register: 10 * time.Second,
	}
}

func (p *Process) newLock() lock {
	if p.db.Engine == masterdb.SQLite {
		return &fileLock{db: p.db, name: p.name}
	}
	return &postgresLock{db: p.db, log: p.log, name: p.name, key: p.lockKey, timing: p.timing}
}

// lock holds this process's lock and reads those of the others.
type lock interface {
	// acquire takes the lock. It fails if that is not possible at once.
	acquire(ctx context.Context) error
	// look returns the registered processes. It keeps the lock, or takes it again.
	look(ctx context.Context) ([]observed, error)
	// release releases the lock.
	release(ctx context.Context)
}

// observed is one registered process.
type observed struct {
	Name  string
	Host  string
	Beats int64
	Held  bool // it holds its lock
}

// New returns a Process with a new name. The process is not present before Start.
func New(db *masterdb.DB, log *slog.Logger) *Process {
	p := &Process{db: db, log: log.With("component", "presence"), name: rand.Text(), timing: timingOn(db.Engine), joined: make(chan struct{}, 1)}
	if n, err := rand.Int(rand.Reader, big.NewInt(1<<31)); err == nil { // rand.Int never fails
		p.lockKey = int32(n.Int64()) //nolint:gosec // below 2^31
	}
	return p
}

// Name returns the process's name, which no other process has or had.
func (p *Process) Name() string { return p.name }

// OnProcessEnd registers fn to be called when a process has ended, once for each process,
// in the transaction that removes it, in whichever process detects it first. The
// functions are called in the order of their registration. Call OnProcessEnd before Start.
func (p *Process) OnProcessEnd(fn func(ctx context.Context, tx *masterdb.Tx, process string) error) {
	p.onGone = append(p.onGone, fn)
}

// Start makes the process present and watches the others until Stop. On SQLite
// the work of processes that ended before has been released when it returns.
func (p *Process) Start(ctx context.Context) error {
	p.lock = p.newLock()
	if err := p.lock.acquire(ctx); err != nil {
		return fmt.Errorf("register this process: %w", err)
	}
	if err := p.register(ctx); err != nil {
		p.lock.release(ctx)
		return fmt.Errorf("register this process: %w", err)
	}
	// A process that is alone looks rarely until another process registers.
	p.db.Subscribe(registered, func(process string) {
		if process != p.name {
			p.lookNow()
		}
	}, p.lookNow)
	o := newObserver(p.name, p.timing)
	if p.db.Engine == masterdb.SQLite {
		p.look(ctx, o)
	}
	ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	p.running.Go(func() {
		next := time.NewTimer(p.timing.look)
		defer next.Stop()
		for {
			select {
			case <-next.C:
			case <-p.joined:
			case <-ctx.Done():
				return
			}
			p.look(ctx, o)
			next.Reset(o.pause)
		}
	})
	return nil
}

// Stop ends the presence and releases what this process still owns. Call it when the
// process has finished its work. If it fails because the master does not answer, other
// processes detect the end by the lock.
func (p *Process) Stop(ctx context.Context) error {
	if p.stop == nil {
		return nil
	}
	p.stop()
	p.running.Wait()
	err := p.release(ctx, observed{Name: p.name}, false)
	p.lock.release(ctx)
	if err != nil {
		return fmt.Errorf("unregister this process: %w", err)
	}
	return nil
}

// register inserts the process into the table.
func (p *Process) register(ctx context.Context) error {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return p.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO processes (name, host, lock_key, started_at) VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO NOTHING`,
			p.name, host, p.lockKey, tx.Now)
		if err != nil {
			return err
		}
		return tx.Notify(registered, p.name)
	})
}

// look detects the ends of other processes and releases their work.
func (p *Process) look(ctx context.Context, o *observer) {
	processes, err := p.lock.look(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		p.log.DebugContext(ctx, "other processes cannot be observed", "err", err)
		o.doubt(time.Now())
		return
	}
	gone, self := o.observe(time.Now(), processes)
	if !self {
		p.log.WarnContext(ctx, "this process was taken for ended and its work was released; it registers again", "process", p.name)
		if err := p.register(ctx); err != nil {
			p.log.WarnContext(ctx, "this process is not registered", "process", p.name, "err", err)
		}
	}
	for _, process := range gone {
		if err := p.release(ctx, process, true); err != nil {
			p.log.WarnContext(ctx, "work of an ended process is not released yet", "process", process.Name, "err", err)
			return
		}
	}
}

// release removes a process from the table and calls the functions registered with OnProcessEnd.
// It does nothing if another process has done so or if, with unlessBeats set, the process
// has sent a heartbeat meanwhile.
func (p *Process) release(ctx context.Context, process observed, unlessBeats bool) error {
	ctx, cancel := context.WithTimeout(ctx, p.timing.register)
	defer cancel()
	var removed int64
	err := p.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		removed, err = tx.Exec(ctx, `DELETE FROM processes WHERE name = $1 AND (beats = $2 OR $3 = 0)`, process.Name, process.Beats, flag(unlessBeats))
		if err != nil || removed == 0 {
			return err
		}
		for _, fn := range p.onGone {
			if err := fn(ctx, tx, process.Name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || removed == 0 || process.Name == p.name {
		return err
	}
	if p.db.Engine == masterdb.SQLite {
		err = p.db.RemoveProcess(process.Name)
	}
	p.log.InfoContext(ctx, "process has ended; its work is released", "process", process.Name, "host", process.Host)
	return err
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}
