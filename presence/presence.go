// Package presence tells which processes share the master database, and has
// the work of a process go on elsewhere when that process has ended.
//
// A process is present while it holds a lock that ends with it: on PostgreSQL an
// advisory lock of a session, on SQLite the lock of a file. Times are measured by
// the observer's own monotonic clock; clocks of different machines are never
// compared. A process that is wrongly taken for ended does no harm: whatever it
// owns is checked again at each of its writes, and its jobs may run twice.
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

	"github.com/stoahq/stoa/masterdb"
)

// Process is this process, as the others see it, and its view of them.
// It is safe for concurrent use after Start.
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

// timing says how fast the end of a process is noticed. A killed process is
// noticed after grace and two looks at most.
type timing struct {
	look     time.Duration // between two looks at the other processes
	alone    time.Duration // between two looks while no other process is on record
	lost     time.Duration // between two looks while this process is without its lock
	beat     time.Duration // between two heartbeats while the lock is held
	grace    time.Duration // how long a process may be without its lock
	frozen   time.Duration // how long a process that holds its lock may be without a heartbeat
	careful  time.Duration // how long nobody is taken for ended after this process lost the master
	answer   time.Duration // how long the master may take to answer a look
	register time.Duration // how long a transaction that records an end may take
}

// timingOn returns the times for an engine. The lock of a file ends with its
// process and never before, so that SQLite needs no grace and no heartbeats, and a
// process that is suspended keeps its work.
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

// lock is what holds this process's lock and sees those of the others.
type lock interface {
	// acquire takes the lock. It fails when that is not possible at once.
	acquire(ctx context.Context) error
	// look returns the processes on record. It keeps the lock, or takes it again.
	look(ctx context.Context) ([]observed, error)
	// release gives the lock up.
	release(ctx context.Context)
}

// observed is one process on record.
type observed struct {
	Name  string
	Host  string
	Beats int64
	Held  bool // it holds its lock
}

// New gives this process a name. It is not present before Start.
func New(db *masterdb.DB, log *slog.Logger) *Process {
	p := &Process{db: db, log: log.With("component", "presence"), name: rand.Text(), timing: timingOn(db.Engine), joined: make(chan struct{}, 1)}
	if n, err := rand.Int(rand.Reader, big.NewInt(1<<31)); err == nil { // it never fails
		p.lockKey = int32(n.Int64()) //nolint:gosec // below 2^31
	}
	return p
}

// Name is the process's name, which no other process has or had.
func (p *Process) Name() string { return p.name }

// OnGone registers fn to be called in one transaction with the record that a
// process has ended, once for each process, in whichever process sees it first.
// The functions are called in the order of their registration. Call it before Start.
func (p *Process) OnGone(fn func(ctx context.Context, tx *masterdb.Tx, process string) error) {
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
	// Another process that registers ends the long pause of a process that is alone.
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

// Stop ends the presence. What this process still owns goes on elsewhere, so
// call it when the process has finished its work. It fails when the master cannot be
// asked: then others notice the end by the lock.
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

// register puts the process on record.
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

// look notices the ends of other processes and releases their work.
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
		p.log.WarnContext(ctx, "another process took this process for ended and released its work; this process registers again", "process", p.name)
		if err := p.register(ctx); err != nil {
			p.log.WarnContext(ctx, "this process is not registered", "process", p.name, "err", err)
		}
	}
	for _, process := range gone {
		if err := p.release(ctx, process, true); err != nil {
			p.log.WarnContext(ctx, "the work of a process that ended is not released yet", "process", process.Name, "err", err)
			return
		}
	}
}

// release removes a process from the record and calls what is registered with
// OnGone, unless another process has done so or, with unlessBeats set, the
// process has shown a sign of life meanwhile.
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
	p.log.InfoContext(ctx, "a process has ended; its work goes on here or elsewhere", "process", process.Name, "host", process.Host)
	return err
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}
