package accounts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
)

// SuspendUser suspends a user: their sessions end and their API keys are refused, at
// once and on every replica, and they cannot sign in until ResumeUser. Their stores stay
// open. The reason is recorded in the audit log and mailed to the user. Suspending a
// suspended user changes nothing.
//
// It fails with forbidden unless the caller is an operator, for another operator and for
// the caller, with not_found, and with invalid_request for a missing reason.
func (a *Accounts) SuspendUser(ctx context.Context, p authz.Principal, user stoa.UserID, reason string) error {
	if err := authz.CheckOperator(ctx, a.db, p, "suspend user"); err != nil {
		return err
	}
	reason, err := checkReason(reason)
	if err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		u, err := lockForSuspension(ctx, tx, user)
		if err != nil || u.SuspendedAt != nil {
			return err
		}
		switch {
		case user == p.UserID:
			return stoa.Errorf(stoa.Forbidden, "Nobody can suspend their own account.")
		case u.IsOperator():
			return stoa.Errorf(stoa.Forbidden, "An operator of the platform cannot be suspended. Remove their operator role first.")
		}
		_, err = tx.Exec(ctx, `UPDATE users SET suspended_at = $1, suspended_by = $2, suspension_reason = $3, suspension_changed_at = $1, updated_at = $1 WHERE id = $4`,
			tx.Now, p.UserID, reason, user)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE sessions SET revoked_at = $1 WHERE user_id = $2 AND revoked_at IS NULL`, tx.Now, user); err != nil {
			return err
		}
		err = audit.Record(ctx, tx, p, audit.Event{Action: audit.UserSuspended, Details: map[string]string{"user": user.String(), "reason": reason}})
		if err != nil {
			return err
		}
		return a.opts.Queue.Enqueue(ctx, tx, MailSuspension{UserID: user})
	})
}

// ResumeUser ends a suspension. The user can sign in again and their API keys work
// again; the sessions stay ended. Resuming a user who is not suspended changes nothing.
// It fails as SuspendUser does.
func (a *Accounts) ResumeUser(ctx context.Context, p authz.Principal, user stoa.UserID, reason string) error {
	if err := authz.CheckOperator(ctx, a.db, p, "resume user"); err != nil {
		return err
	}
	reason, err := checkReason(reason)
	if err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		u, err := lockForSuspension(ctx, tx, user)
		if err != nil || u.SuspendedAt == nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE users SET suspended_at = NULL, suspended_by = NULL, suspension_reason = '', suspension_changed_at = $1,
			updated_at = $1 WHERE id = $2`, tx.Now, user)
		if err != nil {
			return err
		}
		err = audit.Record(ctx, tx, p, audit.Event{Action: audit.UserResumed, Details: map[string]string{"user": user.String(), "reason": reason}})
		if err != nil {
			return err
		}
		return a.opts.Queue.Enqueue(ctx, tx, MailSuspension{UserID: user})
	})
}

// lockForSuspension reads a user and locks their row until tx ends, so that a suspension
// is ordered before or after a sign-in. It fails with not_found.
func lockForSuspension(ctx context.Context, tx *masterdb.Tx, id stoa.UserID) (UserSummary, error) {
	var u UserSummary
	err := tx.Get(ctx, &u, `SELECT `+summaryColumns+` FROM users u WHERE u.id = $1 AND u.deleted_at IS NULL`+tx.ForUpdate(), id)
	if errors.Is(err, masterdb.ErrNotFound) {
		return u, errNoUser()
	}
	return u, err
}

// checkNotSuspended fails with account_suspended for a suspended user.
func checkNotSuspended(ctx context.Context, q masterdb.Querier, user stoa.UserID) error {
	var suspended bool
	err := q.Get(ctx, &suspended, `SELECT suspended_at IS NOT NULL FROM users WHERE id = $1`, user)
	if err != nil {
		return err
	}
	if suspended {
		return authz.ErrAccountSuspended()
	}
	return nil
}

func errNoUser() error { return stoa.Errorf(stoa.NotFound, "There is no such user.") }

// MailSuspension is the job that tells a user that their account was suspended or
// resumed.
type MailSuspension struct {
	UserID stoa.UserID `json:"userId"`
}

// Kind implements jobs.Args.
func (MailSuspension) Kind() string { return "accounts.mail_suspension" }

func (a *Accounts) mailSuspension(ctx context.Context, job MailSuspension) error {
	var user struct {
		User
		Suspended bool
		Reason    string
		ChangedAt time.Time
	}
	err := a.db.Get(ctx, &user, `
		SELECT `+userColumns+`, suspended_at IS NOT NULL AS suspended, suspension_reason AS reason, suspension_changed_at AS changed_at
		FROM users WHERE id = $1 AND deleted_at IS NULL`, job.UserID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil
	}
	if err != nil || !user.EmailVerified { // the address may be another person's
		return err
	}
	id := fmt.Sprintf("suspension-%s-%d", job.UserID, user.ChangedAt.Unix())
	if user.Suspended {
		return a.send(ctx, user.User, id, suspendedMail, a.opts.BaseURL, mail.Plain(user.Reason, maxReason))
	}
	return a.send(ctx, user.User, id, resumedMail, a.opts.BaseURL)
}

var (
	suspendedMail = mailTemplate{subject: "Your account is suspended", text: "an operator of %s has suspended your account, for this reason:\n\n%s\n\n" +
		"You cannot sign in, and your API keys are refused. Your stores stay open. To have the suspension ended, write to the operator of the platform."}
	resumedMail = mailTemplate{subject: "Your account is no longer suspended", text: "the suspension of your account at %s has ended. " +
		"You can sign in again, and your API keys work again."}
)
