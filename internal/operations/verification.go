package operations

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits/verify"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
)

// VerifyLedger is the job of one verification of the ledger.
type VerifyLedger struct {
	ID stoa.VerificationID `json:"id"`
}

// Kind implements jobs.Args.
func (VerifyLedger) Kind() string { return "credits.verify" }

// RetryWithin implements jobs.RetryWithin. A person waits for the result.
func (VerifyLedger) RetryWithin() time.Duration { return time.Minute }

const (
	// VerifyTimeout limits one execution of the job.
	VerifyTimeout = 6 * time.Hour
	// verifyProgress is the interval at which the progress is recorded.
	verifyProgress = 2 * time.Second
	// verifyStale is the age of a progress after which nobody works on the verification:
	// its job was cancelled, or has failed for the last time.
	verifyStale = 10 * time.Minute
	// maxVerifyFaults is the number of faults that are kept.
	maxVerifyFaults = 100
)

// VerificationState is the state of a verification.
type VerificationState string

// The states of a verification.
const (
	VerificationRunning  VerificationState = "running" // or waiting for a worker
	VerificationFinished VerificationState = "finished"
	VerificationFailed   VerificationState = "failed" // the ledger was not read to its end
)

// Verification is a verification of the ledger in the background.
type Verification struct {
	ID         stoa.VerificationID
	State      VerificationState
	Email      string // of the operator who asked for it
	Report     verify.Report
	Error      string // why it failed
	CreatedAt  time.Time
	UpdatedAt  time.Time // when its progress was recorded last
	FinishedAt *time.Time
}

// Stalled reports whether nobody seems to work on the verification, at a time of the
// master's clock. The next one takes its place.
func (v Verification) Stalled(now time.Time) bool {
	return v.State == VerificationRunning && now.Sub(v.UpdatedAt) > verifyStale
}

// Verify starts a verification of the ledger in the background, which LastVerification
// shows. While one runs it starts no other.
func (s *Service) Verify(ctx context.Context, p authz.Principal) error {
	if err := authz.CheckOperator(ctx, s.db, p, "credits:verify"); err != nil {
		return err
	}
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE ledger_verifications SET state = 'failed', error = $2, finished_at = $3 WHERE state = 'running' AND updated_at < $1`,
			tx.Now.Add(-verifyStale), "It was interrupted and did not go on.", tx.Now); err != nil {
			return err
		}
		job := VerifyLedger{ID: stoa.NewID[stoa.VerificationID]()}
		n, err := tx.Exec(ctx, `INSERT INTO ledger_verifications (id, user_id, state, created_at, updated_at) VALUES ($1, $2, 'running', $3, $3)
			ON CONFLICT DO NOTHING`, job.ID, p.UserID, tx.Now)
		if err != nil || n == 0 {
			return err
		}
		if err := s.queue.Enqueue(ctx, tx, job); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.CreditsVerified,
			Details: map[string]string{"started": "in the background", "verification": job.ID.String()}})
	})
}

// verificationRow is the row of a Verification.
type verificationRow struct {
	Verification
	UserID                        stoa.UserID
	Total, Accounts, Transactions int64
	Faults                        string
}

const selectVerification = `SELECT v.id, v.state, v.user_id, u.email, v.total, v.accounts, v.transactions, v.faults, v.error, v.created_at, v.updated_at, v.finished_at
	FROM ledger_verifications v JOIN users u ON u.id = v.user_id`

// LastVerification returns the last verification that an operator started, or nil.
func (s *Service) LastVerification(ctx context.Context, p authz.Principal) (*Verification, error) {
	if err := authz.CheckOperator(ctx, s.db, p, "credits:verify"); err != nil {
		return nil, err
	}
	var row verificationRow
	err := s.db.Get(ctx, &row, selectVerification+` ORDER BY v.created_at DESC LIMIT 1`)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil, nil //nolint:nilnil // documented: there was none
	}
	if err != nil {
		return nil, err
	}
	v := row.Verification
	v.Report = verify.Report{Of: row.Total, Accounts: row.Accounts, Transactions: row.Transactions}
	return &v, json.Unmarshal([]byte(row.Faults), &v.Report.Inconsistencies)
}

// RunVerification runs the job. An execution that was interrupted begins anew.
func (s *Service) RunVerification(ctx context.Context, job VerifyLedger) error {
	var row verificationRow
	err := s.db.Get(ctx, &row, selectVerification+` WHERE v.id = $1`, job.ID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return jobs.Cancel(err) // its record has expired
	}
	if err != nil || row.State != VerificationRunning {
		return err
	}
	by := authz.Principal{UserID: row.UserID, Origin: audit.Origin{RequestID: job.ID.String()}}
	report, err := s.verifyWithProgress(ctx, job.ID)
	switch {
	case err == nil:
		return s.endVerification(ctx, by, job.ID, VerificationFinished, report, "")
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return s.endVerification(ending, by, job.ID, VerificationFailed, report,
			"The ledger could not be read to its end in "+VerifyTimeout.String()+". The command line has no such limit.")
	}
	return err // a fault of the master, or the process stops: the job runs again
}

// errSuperseded means that another verification has taken the place of this one.
var errSuperseded = errors.New("operations: another verification has taken the place of this one")

// verifyWithProgress verifies the ledger and records the progress meanwhile.
func (s *Service) verifyWithProgress(ctx context.Context, id stoa.VerificationID) (verify.Report, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var latest verify.Report
	ended := make(chan struct{})
	var recording sync.WaitGroup
	recording.Go(func() {
		tick := time.NewTicker(verifyProgress)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
			}
			mu.Lock()
			report := latest
			mu.Unlock()
			if err := s.recordProgress(ctx, id, report); errors.Is(err, errSuperseded) {
				cancel(err)
				return
			}
		}
	})
	report, err := verify.Run(ctx, s.db, func(r verify.Report) {
		mu.Lock()
		defer mu.Unlock()
		latest = verify.Report{Of: r.Of, Accounts: r.Accounts, Transactions: r.Transactions}
	})
	close(ended)
	recording.Wait()
	if err != nil && errors.Is(context.Cause(ctx), errSuperseded) {
		err = jobs.Cancel(errSuperseded)
	}
	return report, err
}

func (s *Service) recordProgress(ctx context.Context, id stoa.VerificationID, r verify.Report) error {
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE ledger_verifications SET total = $2, accounts = $3, transactions = $4, updated_at = $5 WHERE id = $1 AND state = 'running'`,
			id, r.Of, r.Accounts, r.Transactions, tx.Now)
		if err == nil && n == 0 {
			err = errSuperseded
		}
		return err
	})
}

// endVerification records the result, unless another execution has recorded one.
func (s *Service) endVerification(ctx context.Context, by authz.Principal, id stoa.VerificationID, state VerificationState, r verify.Report, message string) error {
	faults, err := json.Marshal(append([]verify.Inconsistency{}, r.Inconsistencies[:min(len(r.Inconsistencies), maxVerifyFaults)]...))
	if err != nil {
		return err
	}
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE ledger_verifications SET state = $2, total = $3, accounts = $4, transactions = $5, faults = $6, error = $7, updated_at = $8, finished_at = $8
			WHERE id = $1 AND state = 'running'`, id, string(state), r.Of, r.Accounts, r.Transactions, string(faults), message, tx.Now)
		if err != nil || n == 0 {
			return err
		}
		outcome := audit.Success
		if state != VerificationFinished || len(r.Inconsistencies) > 0 {
			outcome = audit.Failed
		}
		return audit.Record(ctx, tx, by, audit.Event{Action: audit.CreditsVerified, Outcome: outcome, Details: map[string]string{
			"verification": id.String(), "accounts": strconv.FormatInt(r.Accounts, 10), "transactions": strconv.FormatInt(r.Transactions, 10),
			"faults": strconv.Itoa(len(r.Inconsistencies)),
		}})
	})
}

// VerificationExpiry returns the rule for the records of verifications.
func VerificationExpiry(keep time.Duration) masterdb.Expiry {
	return masterdb.Expiry{Table: "ledger_verifications", Key: []string{"id"}, Age: "created_at", Keep: keep}
}
