package provisioning

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/managed"
)

// A reset stores the new password as planned, sets it at the server, stores it as the
// present one, and ends the sessions that are older. Connections that the server refuses
// meanwhile sign in with the password that the master has then. A job continues what an
// interrupted process has left.

// FinishReset is the job that completes the resets of a store's passwords.
type FinishReset struct {
	jobs.AtTenant
	StoreID stoa.StoreID `json:"store_id"`
}

// Kind implements jobs.Args.
func (FinishReset) Kind() string { return "provisioning.finish_reset" }

// RetryWithin implements jobs.RetryWithin: sessions with the old password are open.
func (FinishReset) RetryWithin() time.Duration { return time.Minute }

const (
	// FinishResetTimeout limits one execution of a FinishReset job.
	FinishResetTimeout = 2 * time.Minute
	// finishResetAfter is when the job starts: usually the reset is complete by then.
	finishResetAfter = time.Minute

	// idleSessionsEnd and busySessionsEnd are how long sessions with the old password may
	// remain. The platform's own end sooner, with the request that uses them.
	idleSessionsEnd = 2 * time.Second
	busySessionsEnd = 10 * time.Second
	sessionsPoll    = 100 * time.Millisecond
)

// ResetPassword gives one role of a store's managed database a new random password, and
// ends the sessions that used the old one within seconds. Requests of shoppers continue.
// Calls at the same time set one password. It fails as Credentials does, and with
// tenant_unavailable if the server did not take the password: then the old one or the new
// one is valid, and a job tries again.
func (s *Service) ResetPassword(ctx context.Context, p authz.Principal, store stoa.StoreID, a credential.Access) error {
	if err := s.CheckReset(ctx, p, store); err != nil {
		return err
	}
	return s.ResetPasswordByOperator(ctx, p, store, a)
}

// CheckReset fails as ResetPassword does for a caller who may not do it, and for a store
// whose database has no password that the platform can change.
func (s *Service) CheckReset(ctx context.Context, p authz.Principal, store stoa.StoreID) error {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ResetPassword); err != nil {
		return err
	}
	_, err := s.onServer(ctx, store)
	return err
}

// ResetPasswordByOperator does what ResetPassword does, for an operator with access to the
// master database. It checks no permission.
func (s *Service) ResetPasswordByOperator(ctx context.Context, p authz.Principal, store stoa.StoreID, a credential.Access) error {
	c, err := s.onServer(ctx, store)
	if err != nil {
		return err
	}
	if a == credential.ReadAccess && c.Reader.Password.IsZero() && c.Reader.Reset.Next.IsZero() {
		return stoa.Errorf(stoa.NotFound, "This database has no role for reports yet. It is made when its connection string is first asked for.")
	}
	if _, err := s.planPassword(ctx, store, a, &p); err != nil {
		return err
	}
	_, err = s.finishReset(ctx, store, a)
	return err
}

// planPassword stores the password that a role is to get, and the job that completes the
// change. A password that is planned already is kept: nobody has seen it. Without by, it
// is the first password of a role, and otherwise a reset, which it records.
func (s *Service) planPassword(ctx context.Context, store stoa.StoreID, a credential.Access, by *authz.Principal) (c credential.Credentials, err error) {
	password, planned := credential.NewPassword(), false
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := s.registry.LockNotMoving(ctx, tx, store); err != nil {
			return err
		}
		c, err = s.tenants.Amend(ctx, tx, store, func(c *credential.Credentials) bool {
			r := c.ResetOf(a)
			if planned = by != nil || c.As(a).Password.IsZero(); planned && r.Next.IsZero() {
				r.Next = password
			}
			return false
		})
		if err != nil || !planned {
			return err
		}
		if by != nil {
			if err := audit.Record(ctx, tx, *by, audit.Event{Action: audit.DatabasePassword, Store: store, Details: accessDetails(a)}); err != nil {
				return err
			}
		}
		return s.queue.EnqueueAt(ctx, tx, tx.Now.Add(finishResetAfter), FinishReset{StoreID: store})
	})
	return c, err
}

// FinishReset is the handler of the job. It does nothing for a store whose resets are
// complete, or that has no such database any more.
func (s *Service) FinishReset(ctx context.Context, job FinishReset) error {
	for _, a := range credential.Accesses {
		_, err := s.finishReset(ctx, job.StoreID, a)
		switch stoa.CodeOf(err) {
		case stoa.StorePendingDatabase, stoa.StoreNotFound, stoa.NotFound:
			return nil
		case "":
		default:
			return err
		}
	}
	return nil
}

// finishReset sets the planned password of a role, if there is one, and ends the sessions
// that are older than the present one. It returns the store's credentials.
func (s *Service) finishReset(ctx context.Context, store stoa.StoreID, a credential.Access) (credential.Credentials, error) {
	c, err := s.loadOnServer(ctx, store)
	if err != nil {
		return c, err
	}
	if next := c.ResetOf(a).Next; !next.IsZero() {
		mark, err := s.managed.SetPassword(ctx, c, a, next, func() (bool, error) {
			now, err := s.tenants.Load(ctx, s.db, store)
			return now.ResetOf(a).Next == next, err
		})
		switch {
		case errors.Is(err, managed.ErrSuperseded): // another execution has completed it
		case err != nil:
			s.log.WarnContext(ctx, "password of a managed database not set", "store_id", store.String(), "access", string(a), "err", err)
			return c, err
		default:
			if err := s.promote(ctx, store, a, func(r *credential.PasswordReset) bool { return r.Next == next }, mark); err != nil {
				return c, err
			}
		}
	}
	if c, err = s.tenants.Load(ctx, s.db, store); err != nil || c.ResetOf(a).Since == "" {
		return c, err
	}
	if err := s.endSessions(ctx, c, a); err != nil {
		return c, err
	}
	mark := c.ResetOf(a).Since
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		c, err = s.tenants.Amend(ctx, tx, store, func(c *credential.Credentials) bool {
			if r := c.ResetOf(a); r.Since == mark {
				r.Since = ""
			}
			return false
		})
		return err
	})
	return c, err
}

// promote stores that the server has the planned password. Replicas that use the store's
// own role connect anew.
func (s *Service) promote(ctx context.Context, store stoa.StoreID, a credential.Access, planned func(*credential.PasswordReset) bool, mark string) error {
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := s.tenants.Amend(ctx, tx, store, func(c *credential.Credentials) bool {
			r := c.ResetOf(a)
			if !planned(r) {
				return false
			}
			c.SetPassword(a, r.Next)
			*r = credential.PasswordReset{Since: mark}
			return a == credential.FullAccess
		})
		return err
	})
	if a == credential.FullAccess {
		s.tenants.Forget(store) // also after an error: a transaction whose connection was lost may have committed
	}
	return err
}

// endSessions waits until the sessions that are older than the present password have
// ended, and ends those that remain. The platform's own end with the requests that use
// them.
func (s *Service) endSessions(ctx context.Context, c credential.Credentials, a credential.Access) error {
	start := time.Now()
	tick := time.NewTicker(sessionsPoll)
	defer tick.Stop()
	for {
		which := managed.NoSessions
		switch waited := time.Since(start); {
		case waited > busySessionsEnd:
			which = managed.AllSessions
		case waited > idleSessionsEnd:
			which = managed.IdleSessions
		}
		found, err := s.managed.EndSessions(ctx, c, a, c.ResetOf(a).Since, which)
		if err != nil || found == 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
