// Package backups makes the archives of stores, on request and by schedules, checks them by
// restoring them, deletes them when they are no longer kept, and loads them into the store
// they are of or into a new one. The archives are in a storage of package archive; what is
// known of them is in the master database.
package backups

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/managed"
)

// Service makes and uses archives. It is safe for concurrent use.
type Service struct {
	db           *masterdb.DB
	registry     *stores.Registry
	tenants      *tenantdb.Manager
	managed      *managed.Databases
	provisioning *provisioning.Service
	queue        *jobs.Queue
	storage      archive.Storage
	ring         *keyring.Ring
	log          *slog.Logger
	opts         Options
	process      *lease.Process
	metrics      metrics
	slots        chan struct{} // a slot for each job that reads or writes archives

	storageMu      sync.Mutex
	storageChecked bool
}

// Options configure a Service.
type Options struct {
	// Recipients can open every archive too.
	Recipients []age.Recipient
	// Schedule is that of stores without one of their own.
	Schedule Schedule
	// KeepDeleted is how long the archives of a deleted store are kept. 0 keeps them for
	// ever.
	KeepDeleted time.Duration
	// Process is the name of this process, for Release. Default: a random name.
	Process string
	// Lease is the duration of the lease of a job. Default 30 s.
	Lease time.Duration
	// CloseWait is how long a restore waits until the requests of other processes to the
	// store's database have ended. Default 15 s, which is longer than any of their
	// statements.
	CloseWait time.Duration
	// MaxContent is the most content of an archive, in bytes of rows in their canonical form:
	// its check needs as much of this machine's disk. Default archive.DefaultMaxContent.
	MaxContent int64

	scryptWork int // see scryptWork
}

const (
	// maxRequested limits the archives of one store that its people have asked for or
	// uploaded. Those of schedules have numbers of their own.
	maxRequested = 50
	// atOnce limits the jobs that one process runs at a time: each needs memory for the
	// compression and for the parts of an upload.
	atOnce = 2
	// busyPause is how long a job waits that finds no slot, or whose row another execution has.
	busyPause = 2 * time.Second
	// tries is how often a job is tried whose failure may pass.
	tries = 3
)

// New returns a service. It registers its jobs with Register.
func New(db *masterdb.DB, registry *stores.Registry, tenants *tenantdb.Manager, p *provisioning.Service, queue *jobs.Queue,
	storage archive.Storage, ring *keyring.Ring, log *slog.Logger, opts Options,
) *Service {
	if opts.Process == "" {
		opts.Process = rand.Text()
	}
	if opts.Lease == 0 {
		opts.Lease = 30 * time.Second
	}
	if opts.MaxContent == 0 {
		opts.MaxContent = archive.DefaultMaxContent
	}
	if opts.scryptWork == 0 {
		opts.scryptWork = scryptWork
	}
	if opts.CloseWait == 0 {
		opts.CloseWait = 15 * time.Second
	}
	return &Service{
		metrics: newMetrics(),
		db:      db, registry: registry, tenants: tenants, managed: managed.New(db, tenants), provisioning: p, queue: queue, storage: storage, ring: ring, log: log, opts: opts,
		process: lease.NewProcess(opts.Process), slots: make(chan struct{}, atOnce),
	}
}

// Register registers the handlers and the schedule of the jobs.
func (s *Service) Register() {
	jobs.Handle(s.queue, jobTimeout, s.RunMake)
	jobs.Handle(s.queue, jobTimeout, s.RunCheck)
	jobs.Handle(s.queue, jobTimeout, s.RunRestore)
	jobs.Handle(s.queue, time.Minute, s.RunDelete)
	jobs.Handle(s.queue, dueTimeout, s.RunDue)
	jobs.Every(s.queue, dueEvery, Due{})
}

// jobTimeout limits one execution of a job that reads or writes an archive.
const jobTimeout = 12 * time.Hour

// Release expires the leases of a process that has ended.
func (s *Service) Release(ctx context.Context, tx *masterdb.Tx, process string) error {
	for _, t := range []lease.Table{backupLeases, restoreLeases} {
		if _, err := t.ExpireProcess(ctx, tx, process); err != nil {
			return err
		}
	}
	return nil
}

// Origin is the reason why there is an archive.
type Origin string

// The origins of archives.
const (
	Requested Origin = "request"
	Scheduled Origin = "schedule"
	Saved     Origin = "restore" // of what a restore has replaced
	Uploaded  Origin = "upload"
)

// State is the state of an archive.
type State string

// The states of archives.
const (
	Queued    State = "queued"
	Running   State = "running"
	Succeeded State = "succeeded"
	Failed    State = "failed"
	Deleting  State = "deleting"
)

// CheckState is the result of the last check of an archive.
type CheckState string

// The results of checks.
const (
	Unchecked   CheckState = "none"
	CheckQueued CheckState = "queued"
	CheckPassed CheckState = "passed"
	CheckFailed CheckState = "failed"
)

// Backup describes an archive of a store.
type Backup struct {
	ID         stoa.BackupID
	StoreID    stoa.StoreID
	Origin     Origin
	State      State
	Bytes      int64 // of the file
	RowCount   int64
	Manifest   Manifest            `db:"-"`
	Done       Progress            `db:"-"` // while it is running
	Fault      *provisioning.Fault `db:"-"`
	CreatedBy  *stoa.UserID
	CreatedAt  time.Time
	FinishedAt *time.Time
	SnapshotAt *time.Time
	KeepUntil  *time.Time

	CheckState    CheckState
	CheckRestored bool    // the check has loaded it into a database and compared all rows
	CheckMessage  *string // why the check failed
	CheckMS       *int64  // how long the check took, in milliseconds
	CheckedAt     *time.Time
}

// Progress says how far an archive is.
type Progress struct {
	Tables, OfTables int
	Rows             int64
}

// Manifest describes what an archive contains.
type Manifest struct {
	StoreID       stoa.StoreID      `json:"storeId"`
	Engine        string            `json:"engine,omitempty"`
	EngineVersion string            `json:"engineVersion,omitempty"`
	SchemaVersion int64             `json:"schemaVersion,omitempty"`
	OwnVersion    int64             `json:"ownVersion,omitempty"`
	Release       string            `json:"release,omitempty"`
	Checksum      string            `json:"checksum,omitempty"`
	Tables        []archive.Summary `json:"tables,omitempty"`
	NotIncluded   []string          `json:"notIncluded,omitempty"`
	Omitted       int               `json:"omitted,omitempty"` // the number of further such names
}

// mayPass reports whether the same job may succeed later without any change.
func mayPass(err error) bool {
	switch stoa.CodeOf(err) { //nolint:exhaustive // the others are about the archive or the request
	case stoa.ArchiveStorageFailed, stoa.Internal, stoa.TenantUnavailable, stoa.TenantError, stoa.PlatformUnavailable,
		stoa.DatabaseUnreachable, stoa.DatabaseNoProgress:
		return true
	}
	return tenantdb.IsTransient(err)
}

var (
	backupLeases  = lease.Table{Name: "backups", Key: "id", Where: `state IN ('queued', 'running', 'succeeded', 'deleting')`, KeepPresent: true}
	restoreLeases = lease.Table{Name: "backup_restores", Key: "id", Where: `state IN ('queued', 'running')`, KeepPresent: true}
)

// leased calls work with the lease of a row, in a slot of this process. It does nothing if
// the row may not be leased any more, and returns an error that delays the job while
// another execution has the lease.
func (s *Service) leased(ctx context.Context, table lease.Table, key any, work func(context.Context, lease.Owner) error) error {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return jobs.Snooze(busyPause)
	}
	err := s.withLease(ctx, table, key, work)
	var waits *waitError
	if errors.As(err, &waits) {
		return jobs.Snooze(waits.pause)
	}
	return err
}

// withLease does what leased does without a slot.
func (s *Service) withLease(ctx context.Context, table lease.Table, key any, work func(context.Context, lease.Owner) error) error {
	l := lease.Lease{Table: table, Key: key, Owner: s.process.NewOwner(), Duration: s.opts.Lease}
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error { return l.Acquire(ctx, tx) })
	if errors.Is(err, lease.ErrLost) {
		return s.unleased(ctx, table, key)
	}
	if err != nil {
		return err
	}
	kept, stop := l.Keep(ctx, s.db, s.log)
	err = stoa.CatchPanic(func() error { return work(kept, l.Owner) })
	lost := context.Cause(kept)
	stop()
	if errors.Is(err, lease.ErrLost) || errors.Is(lost, lease.ErrLost) {
		return nil // another execution has it
	}
	releasing, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	released := s.db.Tx(releasing, func(tx *masterdb.Tx) error { return l.Release(releasing, tx) })
	if errors.Is(released, lease.ErrLost) {
		released = nil // the row is gone, or was given up
	}
	if err == nil {
		err = released
	}
	return err
}

const releaseTimeout = 10 * time.Second

// waitError means that a job waits for something.
type waitError struct{ pause time.Duration }

func (*waitError) Error() string { return "backups: waits" }

// unleased returns nil for a row that nobody may work on, and otherwise an error that delays
// the job.
func (s *Service) unleased(ctx context.Context, table lease.Table, key any) error {
	var n int
	err := s.db.Get(ctx, &n, `SELECT count(*) FROM `+table.Name+` WHERE `+table.Key+` = $1 AND `+table.Where, key)
	if err == nil && n > 0 {
		return &waitError{busyPause}
	}
	return err
}

// checkStorage finds out once what the storage can do, before anything is stored there.
func (s *Service) checkStorage(ctx context.Context) error {
	s.storageMu.Lock()
	defer s.storageMu.Unlock()
	if s.storageChecked {
		return nil
	}
	notes, err := s.storage.Check(ctx)
	for _, note := range notes {
		s.log.WarnContext(ctx, "storage of archives", "note", note)
	}
	s.storageChecked = err == nil
	return err
}

const columns = `b.id, b.store_id, b.origin, b.state, b.attempt, b.name, b.bytes, b.row_count, b.manifest AS manifest_json, b.tables_done, b.tables_total, b.rows_done,
	b.error_code, b.error_message, b.created_by, b.created_at, b.finished_at, b.snapshot_at, b.keep_until,
	b.check_state, b.check_restored, b.check_message, b.check_ms, b.checked_at`

// row is a row of backups.
type row struct {
	Backup
	Attempt                 int
	Name                    string
	ManifestJSON            string
	TablesDone, TablesTotal int
	RowsDone                int64
	ErrorCode, ErrorMessage *string
}

func (r row) backup() (Backup, error) {
	r.Fault = provisioning.NewFault(r.ErrorCode, r.ErrorMessage)
	r.Done = Progress{Tables: r.TablesDone, OfTables: r.TablesTotal, Rows: r.RowsDone}
	err := json.Unmarshal([]byte(r.ManifestJSON), &r.Manifest)
	return r.Backup, err
}

func read(ctx context.Context, q masterdb.Querier, where string, args ...any) (row, error) {
	var r row
	err := q.Get(ctx, &r, `SELECT `+columns+` FROM backups b WHERE `+where, args...)
	if errors.Is(err, masterdb.ErrNotFound) {
		return r, errNoBackup()
	}
	return r, err
}

func errNoBackup() error {
	return stoa.Errorf(stoa.NotFound, "There is no such archive of this store. List its archives.")
}

// Get returns an archive of the store. It fails with not_found.
func (s *Service) Get(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.BackupID) (Backup, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ReadBackups); err != nil {
		return Backup{}, err
	}
	return s.get(ctx, store, id)
}

func (s *Service) get(ctx context.Context, store stoa.StoreID, id stoa.BackupID) (Backup, error) {
	r, err := read(ctx, s.db, `b.id = $1 AND b.store_id = $2 AND b.state <> 'deleting'`, id, store)
	if err != nil {
		return Backup{}, err
	}
	return r.backup()
}

// Page is one page of archives, newest first.
type Page struct {
	Backups    []Backup
	NextCursor *string
}

// List lists the store's archives. limit is 1 to page.MaxLimit, or 0 for page.DefaultLimit;
// cursor is NextCursor of the previous page. It fails with invalid_request.
func (s *Service) List(ctx context.Context, p authz.Principal, store stoa.StoreID, limit int, cursor string) (Page, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ReadBackups); err != nil {
		return Page{}, err
	}
	return s.ListByOperator(ctx, store, limit, cursor)
}

// ListByOperator does what List does, for an operator with access to the master database.
// It checks no permission.
func (s *Service) ListByOperator(ctx context.Context, store stoa.StoreID, limit int, cursor string) (Page, error) {
	var faults stoa.Invalid
	bounds := page.ByID[stoa.BackupID](limit, cursor, &faults)
	if err := faults.Err(); err != nil {
		return Page{}, err
	}
	var rows []row
	err := s.db.Select(ctx, &rows, `SELECT `+columns+` FROM backups b WHERE b.store_id = $1 AND b.id < $2 AND b.state <> 'deleting' ORDER BY b.id DESC LIMIT $3`,
		store, bounds.Before, bounds.Rows())
	if err != nil {
		return Page{}, err
	}
	rows, next := page.Cut(rows, bounds.Limit, func(r row) string { return r.ID.String() })
	list := make([]Backup, len(rows))
	for i, r := range rows {
		if list[i], err = r.backup(); err != nil {
			return Page{}, err
		}
	}
	return Page{list, next}, nil
}
