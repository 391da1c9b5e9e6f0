// Package moves moves a store's database to another engine or server while the store is in
// use. docs/adr/0037-live-moves.md describes how.
package moves

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/managed"
)

// Service moves stores. It is safe for concurrent use.
type Service struct {
	db        *masterdb.DB
	registry  *stores.Registry
	tenants   *tenantdb.Manager
	managed   *managed.Databases
	databases *provisioning.Service
	queue     *jobs.Queue
	log       *slog.Logger
	opts      Options
	process   *lease.Process
	slots     chan struct{} // a slot for each move that this process works on

	interrupt func(step string) error // called before and after the work of each step; for tests
}

// Options configure a Service.
type Options struct {
	// Keep is how long the old database follows the new one after a move, so that the move
	// can be rolled back. Default 24 h.
	Keep time.Duration
	// Lease is the duration of the lease of a move. Default 15 s.
	Lease time.Duration
	// Process is the name of this process, for Release. Default: a random name.
	Process string
	// Follow is the time between two rounds in which the old database follows. Default 1 min.
	Follow time.Duration
	// MaxContent is the most content of a store that is copied, in bytes of rows in their
	// canonical form. Default archive.DefaultMaxContent.
	MaxContent int64
}

// atOnce is how many moves a process works on at once. A server that hangs may hold one for
// hours, and the queue has other jobs.
const atOnce = 4

// New returns a service. Its method Run is the handler of Run jobs.
func New(db *masterdb.DB, registry *stores.Registry, tenants *tenantdb.Manager, databases *provisioning.Service, queue *jobs.Queue, log *slog.Logger, opts Options) *Service {
	if opts.Keep == 0 {
		opts.Keep = 24 * time.Hour
	}
	if opts.Lease == 0 {
		opts.Lease = 15 * time.Second
	}
	if opts.Follow == 0 {
		opts.Follow = time.Minute
	}
	if opts.MaxContent == 0 {
		opts.MaxContent = archive.DefaultMaxContent
	}
	if opts.Process == "" {
		opts.Process = rand.Text()
	}
	return &Service{db: db, registry: registry, tenants: tenants, managed: managed.New(db, tenants), databases: databases, queue: queue, log: log, opts: opts, process: lease.NewProcess(opts.Process), slots: make(chan struct{}, atOnce)}
}

// Keep returns how long a move can be rolled back.
func (s *Service) Keep() time.Duration { return s.opts.Keep }

// Target is where a store is to be moved: Managed is the engine of a managed database, and
// Project the ref of a project in the Supabase account that the store is connected to. Without
// both, Credentials are those of a database of the owner's own.
type Target struct {
	Managed     credential.EngineName
	Project     string
	Credentials credential.Credentials
}

// Engines returns the engines of the managed databases that the store can move to from the
// one that it has now: those of Target.Managed that Start does not refuse. It checks no
// permission.
func (s *Service) Engines(ctx context.Context, store stoa.StoreID, now tenantdb.Info) (list []credential.EngineName, err error) {
	all := []credential.EngineName{credential.SQLite}
	if server := s.tenants.ManagedEngine(); !server.Embedded() {
		all = []credential.EngineName{server, credential.SQLite}
	}
	for _, engine := range all {
		c, err := s.managed.NewCredentialsOn(ctx, store, engine)
		if err != nil {
			return nil, err
		}
		if from := (Place{c.Kind, now.Engine, now.Host, now.Port, now.DatabaseName}); placeOf(c) != from {
			list = append(list, engine)
		}
	}
	return list, nil
}

// Start begins to move a store to another database, in the background. It fails with
// move_in_progress while the store is moved, with restore_in_progress while it is restored,
// with move_refused for the database that the store has, with quota_exceeded as
// provisioning.Service.Connect does, for a project as provisioning.Service.ConnectProject
// does, and in states of the store without a usable database as a rotation does.
func (s *Service) Start(ctx context.Context, p authz.Principal, store stoa.StoreID, to Target) (Move, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.MoveDatabase); err != nil {
		return Move{}, err
	}
	return s.begin(ctx, p, store, to, true)
}

// StartByOperator does what Start does, for an operator with access to the master database.
// It checks no permission and no quota.
func (s *Service) StartByOperator(ctx context.Context, p authz.Principal, store stoa.StoreID, to Target) (Move, error) {
	return s.begin(ctx, p, store, to, false)
}

// begin starts a move. limited says that the quota of managed databases applies.
func (s *Service) begin(ctx context.Context, p authz.Principal, store stoa.StoreID, to Target, limited bool) (Move, error) {
	c, err := s.plan(ctx, store, to)
	if err != nil {
		return Move{}, err
	}
	var m Move
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		if limited {
			if err := s.databases.CheckQuota(ctx, tx, store, c.Kind); err != nil {
				return err
			}
		}
		m, err = s.start(ctx, tx, p, store, c)
		return err
	})
	return m, err
}

// plan returns the credentials of the target, or the plan for them.
func (s *Service) plan(ctx context.Context, store stoa.StoreID, to Target) (c credential.Credentials, err error) {
	switch {
	case to.Managed != "":
		return s.managed.NewCredentialsOn(ctx, store, to.Managed)
	case to.Project != "":
		return s.databases.PlanProject(ctx, store, to.Project)
	}
	c = to.Credentials
	c.Adopt = false
	err = s.tenants.Validate(&c)
	c.PlanRole()
	return c, err
}

func (s *Service) start(ctx context.Context, tx *masterdb.Tx, p authz.Principal, store stoa.StoreID, c credential.Credentials) (Move, error) {
	if err := s.registry.LockNotMoving(ctx, tx, store); err != nil {
		return Move{}, err
	}
	from, err := s.tenants.Amend(ctx, tx, store, func(*credential.Credentials) bool { return false }) // locks the row
	if err != nil {
		return Move{}, err
	}
	if err := checkIdle(ctx, tx, store, from); err != nil {
		return Move{}, err
	}
	if from.Engine == c.Engine && from.Host == c.Host && from.Port == c.Port && from.Database == c.Database && from.Schema == c.Schema ||
		s.sameProject(store, from, c) {
		return Move{}, errSameDatabase()
	}
	m, err := s.insert(ctx, tx, store, from, c)
	if err != nil {
		return Move{}, err
	}
	details := map[string]string{"move": m.ID.String(), "from": m.Source.String(), "to": m.Target.String()}
	if err := audit.Record(ctx, tx, p, audit.Event{Action: audit.MoveStarted, Store: store, Details: details}); err != nil {
		return Move{}, err
	}
	return m, s.queue.Enqueue(ctx, tx, Run{MoveID: m.ID})
}

// sameProject reports whether the target is in the Supabase project in which the store has
// its role: to prepare it would change the password of the role in use.
func (s *Service) sameProject(store stoa.StoreID, from, to credential.Credentials) bool {
	ref := to.PlannedProject()
	if ref == "" {
		ref = s.tenants.ProjectRef(to)
	}
	return ref != "" && ref == s.tenants.ProjectRef(from) && strings.HasPrefix(from.User, tenantdb.SupabaseRole(store))
}

func errSameDatabase() error {
	return stoa.Errorf(stoa.MoveRefused, "This is the database that the store has now. Give the address of another one.")
}

// checkIdle fails while the database is migrated or restored, or a password of it is reset.
func checkIdle(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, c credential.Credentials) error {
	var starts, schema int64
	if err := tx.Get(ctx, &starts, `SELECT migration_starts FROM store_databases WHERE store_id = $1`, store); err != nil {
		return err
	}
	if err := tx.Get(ctx, &schema, `SELECT schema_version FROM store_databases WHERE store_id = $1`, store); err != nil {
		return err
	}
	var restores int
	if err := tx.Get(ctx, &restores, `SELECT count(*) FROM backup_restores WHERE store_id = $1 AND finished_at IS NULL`, store); err != nil {
		return err
	}
	switch {
	case restores > 0:
		return stoa.Errorf(stoa.RestoreInProgress, "The store is being restored from an archive. Try again when that is done.")
	case starts > 0 || schema < tenantdb.LatestVersion():
		return stoa.Errorf(stoa.MoveInProgress, "The store's tables are being brought up to date. Try again when that is done.")
	case !c.Reset.Next.IsZero() || c.Reset.Since != "" || !c.Reader.Reset.Next.IsZero() || c.Reader.Reset.Since != "":
		return stoa.Errorf(stoa.MoveInProgress, "A password of the store's database is being changed. Try again in a minute.")
	}
	return nil
}

// Abort ends a move before the store uses the new database. It fails with move_refused
// afterwards.
func (s *Service) Abort(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.MoveID) (Move, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.MoveDatabase); err != nil {
		return Move{}, err
	}
	return s.AbortByOperator(ctx, p, store, id)
}

// AbortByOperator does what Abort does. It checks no permission.
func (s *Service) AbortByOperator(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.MoveID) (Move, error) {
	return s.ask(ctx, p, store, id, wishAbort, audit.MoveAborted, func(m Move) error {
		if m.State != Running || m.SwappedAt != nil {
			return stoa.Errorf(stoa.MoveRefused, "The move has ended, or the store uses the new database already. Roll it back instead.")
		}
		return nil
	})
}

// Rollback moves the store back to the database that it had before. What was written since
// is kept. It fails with move_refused unless the old database still follows the new one.
func (s *Service) Rollback(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.MoveID) (Move, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.MoveDatabase); err != nil {
		return Move{}, err
	}
	return s.RollbackByOperator(ctx, p, store, id)
}

// RollbackByOperator does what Rollback does. It checks no permission.
func (s *Service) RollbackByOperator(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.MoveID) (Move, error) {
	return s.ask(ctx, p, store, id, wishRollback, audit.MoveRolledBack, func(m Move) error {
		if !m.follows(s.db.Now()) {
			return stoa.Errorf(stoa.MoveRefused, "Only a move whose old database is kept can be rolled back.")
		}
		return nil
	})
}

// Finish ends the time in which a move can be rolled back: the old database follows no
// longer, and is removed if the platform manages it. It fails with move_refused unless the
// old database still follows the new one.
func (s *Service) Finish(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.MoveID) (Move, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.MoveDatabase); err != nil {
		return Move{}, err
	}
	return s.FinishByOperator(ctx, p, store, id)
}

// FinishByOperator does what Finish does. It checks no permission.
func (s *Service) FinishByOperator(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.MoveID) (Move, error) {
	return s.ask(ctx, p, store, id, wishFinish, audit.MoveFinished, func(m Move) error {
		if !m.follows(s.db.Now()) {
			return stoa.Errorf(stoa.MoveRefused, "Only a move whose old database is kept can be finished.")
		}
		return nil
	})
}

func (s *Service) ask(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.MoveID, wish, action string, check func(Move) error) (m Move, err error) {
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE store_moves SET wish = wish WHERE id = $1`, id); err != nil {
			return err // on PostgreSQL, it waits for others that change the row
		}
		if m, err = read(ctx, tx, store, id); err != nil {
			return err
		}
		if err := check(m); err != nil {
			return err
		}
		if m.Wish != "" && m.Wish != wish {
			return stoa.Errorf(stoa.MoveInProgress, "Somebody has asked already to end this move in another way. Look at it again in a moment.")
		}
		if _, err := tx.Exec(ctx, `UPDATE store_moves SET wish = $2 WHERE id = $1`, id, wish); err != nil {
			return err
		}
		m.Wish = wish
		if err := audit.Record(ctx, tx, p, audit.Event{Action: action, Store: store, Details: map[string]string{"move": id.String()}}); err != nil {
			return err
		}
		return s.queue.Enqueue(ctx, tx, Run{MoveID: id})
	})
	return m, err
}

// Get returns a move of the store.
func (s *Service) Get(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.MoveID) (Move, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ReadStore); err != nil {
		return Move{}, err
	}
	return s.GetByOperator(ctx, store, id)
}

// GetByOperator does what Get does. It checks no permission.
func (s *Service) GetByOperator(ctx context.Context, store stoa.StoreID, id stoa.MoveID) (Move, error) {
	return read(ctx, s.db, store, id)
}

// LastByOperator returns the newest move of the store. It checks no permission.
func (s *Service) LastByOperator(ctx context.Context, store stoa.StoreID) (Move, error) {
	var r row
	err := s.db.Get(ctx, &r, selectMoves+`store_id = $1 ORDER BY id DESC LIMIT 1`, store)
	if errors.Is(err, masterdb.ErrNotFound) {
		return Move{}, stoa.Errorf(stoa.NotFound, "This store was never moved.")
	}
	return r.move(), err
}

// maxNamed limits the tables that a message names.
const maxNamed = 10

// checkHead fails for a database with tables or columns that a move would not carry.
func checkHead(h archive.Head) error {
	if len(h.NotIncluded) == 0 {
		return nil
	}
	more := ""
	if len(h.NotIncluded) > maxNamed || h.Omitted > 0 {
		more = " and more"
	}
	return stoa.Errorf(stoa.MoveRefused, "The store's database has tables or columns that Stoa did not create, and a move does not carry them: %s%s. Move them elsewhere yourself, then try again.",
		strings.Join(h.NotIncluded[:min(maxNamed, len(h.NotIncluded))], ", "), more)
}
