// Package operations is what operators of the platform read and do beyond single stores
// and users: the job queue with its mails, the migration of all stores, grants and prices
// of credits, and the verification of the ledger. Every method checks that the caller is
// an operator, and records what it changes in the audit log.
package operations

import (
	"context"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Service serves operators. It is safe for concurrent use.
type Service struct {
	db     *masterdb.DB
	queue  *jobs.Queue
	ledger *credits.Ledger
	fleet  *fleet.Service
}

// New returns a service.
func New(db *masterdb.DB, queue *jobs.Queue, ledger *credits.Ledger, f *fleet.Service) *Service {
	return &Service{db: db, queue: queue, ledger: ledger, fleet: f}
}

// JobCounts counts the jobs that wait, run or have failed, by kind and state.
func (s *Service) JobCounts(ctx context.Context, p authz.Principal) ([]jobs.Count, error) {
	if err := authz.CheckOperator(ctx, s.db, p, "jobs:read"); err != nil {
		return nil, err
	}
	return jobs.Counts(ctx, s.db)
}

// Queues says of every queue whether its jobs are worked off.
func (s *Service) Queues(ctx context.Context, p authz.Principal) ([]jobs.QueueState, error) {
	if err := authz.CheckOperator(ctx, s.db, p, "jobs:read"); err != nil {
		return nil, err
	}
	return jobs.QueueStates(ctx, s.db, s.db.Now())
}

// JobKinds returns the kinds of jobs that this release runs.
func (s *Service) JobKinds(ctx context.Context, p authz.Principal) ([]string, error) {
	if err := authz.CheckOperator(ctx, s.db, p, "jobs:read"); err != nil {
		return nil, err
	}
	return s.queue.Kinds(), nil
}

// Jobs lists jobs, newest first. It fails with invalid_request.
func (s *Service) Jobs(ctx context.Context, p authz.Principal, f jobs.Filter) (jobs.Page, error) {
	if err := authz.CheckOperator(ctx, s.db, p, "jobs:read"); err != nil {
		return jobs.Page{}, err
	}
	var faults stoa.Invalid
	for _, kind := range f.Kinds {
		if len(kind) > 100 || !isPlain(kind) {
			faults.Add("kind", "is no kind of job")
		}
	}
	if err := faults.Err(); err != nil {
		return jobs.Page{}, err
	}
	return s.queue.List(ctx, f)
}

// RetryJob makes a job run at once. It fails with not_found.
func (s *Service) RetryJob(ctx context.Context, p authz.Principal, id int64) (jobs.Job, error) {
	return s.changeJob(ctx, p, id, audit.JobRetried, s.queue.Retry)
}

// CancelJob cancels a job that has not ended. It fails with not_found.
func (s *Service) CancelJob(ctx context.Context, p authz.Principal, id int64) (jobs.Job, error) {
	return s.changeJob(ctx, p, id, audit.JobCancelled, s.queue.Cancel)
}

func (s *Service) changeJob(ctx context.Context, p authz.Principal, id int64, action string,
	change func(context.Context, *masterdb.Tx, int64) (jobs.Job, error),
) (jobs.Job, error) {
	if err := authz.CheckOperator(ctx, s.db, p, "jobs:change"); err != nil {
		return jobs.Job{}, err
	}
	var job jobs.Job
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		if job, err = change(ctx, tx, id); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: action, Details: map[string]string{"job": strconv.FormatInt(id, 10), "kind": job.Kind}})
	})
	return job, err
}

// FailedMigrations lists the stores whose last migration failed, as fleet.Service.Failed
// does. It fails with invalid_request.
func (s *Service) FailedMigrations(ctx context.Context, p authz.Principal, limit int, cursor string) (fleet.FailedPage, error) {
	if err := authz.CheckOperator(ctx, s.db, p, "stores:migrate"); err != nil {
		return fleet.FailedPage{}, err
	}
	return s.fleet.Failed(ctx, limit, cursor)
}

// Migrate starts the migration of the stores that lag, in the background. Stores whose
// last migration failed are tried again when their pause is over. Starting it while it
// runs changes nothing. It fails with forbidden while migrations are paused.
func (s *Service) Migrate(ctx context.Context, p authz.Principal) error {
	if err := authz.CheckOperator(ctx, s.db, p, "stores:migrate"); err != nil {
		return err
	}
	if s.fleet.Paused() {
		return stoa.Errorf(stoa.Forbidden, "The configuration has paused the migration of stores. Migrate them with the command line, or end the pause.")
	}
	job := s.fleet.Job()
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := s.queue.EnqueueOnce(ctx, tx, job); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.TenantsMigrated, Details: map[string]string{
			"started": "in the background", "version": strconv.FormatInt(job.Schema, 10), "own": strconv.FormatInt(job.Own, 10)}})
	})
}

// Grant is credits that an operator gives to a store.
type Grant struct {
	Store  stoa.StoreID
	Amount credits.Amount
	Reason string // recorded and shown to the store's members
	// Key makes the grant once, however often it is sent.
	Key string
}

const (
	operatorKeys = "operator:" // as the command line's
	maxReason    = 200         // characters
)

// MayGrant fails with forbidden unless the caller may grant credits.
func (s *Service) MayGrant(ctx context.Context, p authz.Principal) error {
	return authz.CheckOperator(ctx, s.db, p, "credits:grant")
}

// GrantCredits gives credits to a store. It fails with forbidden, store_not_found,
// invalid_request and, for another grant with the same key, idempotency_conflict.
func (s *Service) GrantCredits(ctx context.Context, p authz.Principal, g Grant) (credits.Transaction, error) {
	if err := authz.CheckOperator(ctx, s.db, p, "credits:grant"); err != nil {
		return credits.Transaction{}, err
	}
	g.Reason = strings.TrimSpace(g.Reason)
	var faults stoa.Invalid
	if n := utf8.RuneCountInString(g.Reason); n < 10 || n > maxReason || !isPlain(g.Reason) {
		faults.Add("reason", "must be 10 to %d characters on one line: the store's members will read it", maxReason)
	}
	if g.Key == "" || len(g.Key) > 100 || !isPlain(g.Key) {
		faults.Add("key", "is required")
	}
	if g.Amount <= 0 {
		faults.Add("amount", "must be above 0")
	}
	if err := faults.Err(); err != nil {
		return credits.Transaction{}, err
	}
	var t credits.Transaction
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		t, err = s.ledger.Grant(ctx, tx, g.Store, credits.Grant{
			Type: credits.TypeBonus, Amount: g.Amount, Description: g.Reason, IdempotencyKey: operatorKeys + g.Key, By: p,
		})
		return err
	})
	return t, err
}

// SetPrice sets a price, as credits.Ledger.SetPrice does.
func (s *Service) SetPrice(ctx context.Context, p authz.Principal, price credits.Price) (out credits.Price, added bool, err error) {
	if err := authz.CheckOperator(ctx, s.db, p, "prices:set"); err != nil {
		return credits.Price{}, false, err
	}
	return s.ledger.SetPrice(ctx, p, price)
}

// PriceHistory lists all prices, past and planned ones included, as
// credits.Ledger.PriceHistory does.
func (s *Service) PriceHistory(ctx context.Context, p authz.Principal, limit int, cursor string) (credits.PricePage, error) {
	if err := authz.CheckOperator(ctx, s.db, p, "prices:read"); err != nil {
		return credits.PricePage{}, err
	}
	return s.ledger.PriceHistory(ctx, limit, cursor)
}

// isPlain reports whether a text is valid and has no control characters.
func isPlain(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}
