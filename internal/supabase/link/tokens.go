package link

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/supabase"
)

// A refresh token can be used once. So a caller that needs new tokens leases the
// connection, for as long as a call to Supabase may take. All other callers, on any
// replica, wait for the outcome. A lease that has expired with its owner still recorded
// means that the refresh token may be spent.

// renewals are the leases of renewals of tokens.
var renewals = lease.Table{Name: "supabase_connections", Key: "store_id", Where: `state = 'connected'`}

// renewalTopic is notified with the id of a store when a renewal of its tokens
// ends, and with "" when renewals of many stores have ended.
const renewalTopic = "stoa_supabase_renewals"

const (
	minValidity  = time.Minute            // an access token that expires sooner is not used
	minRecheck   = 10 * time.Millisecond  // between two checks of another caller's renewal
	saveInterval = 250 * time.Millisecond // between two attempts to save new tokens
)

// withToken calls fn with an access token of the store's owner, and once more with
// another token when the first is not accepted.
func (s *Service) withToken(ctx context.Context, store stoa.StoreID, fn func(token keyring.Secret) error) error {
	if err := s.configured(); err != nil {
		return err
	}
	token, version, err := s.token(ctx, store, 0)
	if err != nil {
		return err
	}
	if err = fn(token); supabase.StatusOf(err) != http.StatusUnauthorized {
		return err
	}
	if token, _, err = s.token(ctx, store, version); err != nil {
		return err
	}
	return fn(token)
}

// token returns an access token with its version. It does not return the token of the
// version refused, even if that token has not expired. A refused of 0 excludes none.
func (s *Service) token(ctx context.Context, store stoa.StoreID, refused int64) (keyring.Secret, int64, error) {
	ended, leave := s.waiters.Join(store.String())
	defer leave()
	for {
		c, err := s.read(ctx, s.db, store)
		if err != nil {
			return keyring.Secret{}, 0, err
		}
		if c.State == Reconnect {
			return keyring.Secret{}, 0, errReconnect(c.Reason)
		}
		if c.Version != refused && time.Until(c.ExpiresAt) > minValidity {
			t, err := s.unseal(store, c.Tokens)
			return t.Access, c.Version, err
		}
		t, err := s.renewDetached(ctx, store, c)
		if !errors.Is(err, lease.ErrLost) {
			return t.Access, c.Version + 1, err
		}
		if err := s.awaitRenewal(ctx, c, ended); err != nil {
			return keyring.Secret{}, 0, err
		}
	}
}

// awaitRenewal waits for the renewal that c shows. It returns after a notification, after
// the expiry of the renewal's lease, or after lease.Poll.
func (s *Service) awaitRenewal(ctx context.Context, c connection, ended <-chan struct{}) error {
	pause := minRecheck
	if c.ClaimedUntil != nil {
		pause = max(pause, c.ClaimedUntil.Sub(s.db.Now()))
	}
	timer := time.NewTimer(min(pause, lease.Poll))
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func errReconnect(why *Reason) error {
	if why != nil && *why == AnswerLost {
		return stoa.Errorf(stoa.SupabaseReconnect, "Supabase renewed the connection, but its answer was lost. Connect Supabase again; the store's database is not affected.")
	}
	return stoa.Errorf(stoa.SupabaseReconnect, "Access to the Supabase account was revoked or has expired. Connect Supabase again; the store's database is not affected.")
}

// renewDetached calls renew, and continues it when the caller's ctx ends before it has
// completed.
func (s *Service) renewDetached(ctx context.Context, store stoa.StoreID, c connection) (supabase.Tokens, error) {
	type result struct {
		tokens supabase.Tokens
		err    error
	}
	ended := make(chan result, 1)
	s.renewing.Go(func() {
		var r result
		r.err = stoa.CatchPanic(func() (err error) {
			r.tokens, err = s.renew(ctx, store, c)
			return err
		})
		ended <- r
	})
	select {
	case r := <-ended:
		return r.tokens, r.err
	case <-ctx.Done():
		return supabase.Tokens{}, ctx.Err()
	}
}

// Wait waits until no renewal of tokens is in progress. New tokens are lost when the
// master database is closed before.
func (s *Service) Wait() { s.renewing.Wait() }

// renew spends the refresh token and saves the new tokens before any caller uses them. It
// fails with lease.ErrLost when another caller renews the tokens, or has renewed them.
func (s *Service) renew(ctx context.Context, store stoa.StoreID, c connection) (supabase.Tokens, error) {
	old, err := s.unseal(store, c.Tokens)
	if err != nil {
		return supabase.Tokens{}, err
	}
	// A renewal that has started is completed, whether or not the caller waits.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.Lease)
	defer cancel()
	l := s.lease(store, s.process.NewOwner())
	abandoned, err := s.acquire(ctx, l, c)
	if err != nil {
		return supabase.Tokens{}, err
	}
	t, err := s.opts.API.Refresh(ctx, old.Refresh)
	switch {
	case err == nil:
		return t, s.saveTokens(ctx, store, l, t)
	case supabase.Refused(err):
		why := Refused
		if abandoned {
			why = AnswerLost
		}
		s.forget(store) // the account may have changed, and may no longer be accessible
		s.opts.Log.WarnContext(ctx, "connection to Supabase ended", "store", store.String(), "reason", string(why), "err", err)
		return t, errors.Join(errReconnect(&why), s.endRenewal(ctx, store, l, outcome{refused: why}))
	case stoa.CodeOf(err) == stoa.RateLimited, supabase.StatusOf(err)/100 == 4 && !abandoned:
		return t, errors.Join(err, s.endRenewal(ctx, store, l, outcome{}))
	}
	return t, errors.Join(err, s.endRenewal(ctx, store, l, outcome{unknown: true}))
}

// lease returns the lease of a renewal.
func (s *Service) lease(store stoa.StoreID, owner lease.Owner) lease.Lease {
	return lease.Lease{Table: renewals, Key: store, Owner: owner, Duration: s.opts.Lease}
}

// acquire leases the connection if it has not changed since c was read. abandoned reports
// that an earlier renewal may have spent the refresh token, since its outcome was not
// recorded.
func (s *Service) acquire(ctx context.Context, l lease.Lease, c connection) (abandoned bool, err error) {
	if c.ClaimedUntil != nil && c.ClaimedUntil.After(s.db.Now()) {
		return false, lease.ErrLost
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var now struct {
			Version   int64
			ClaimedBy *string
		}
		err := tx.Get(ctx, &now, `SELECT version, claimed_by FROM supabase_connections WHERE store_id = $1`+tx.ForUpdate(), l.Key)
		if errors.Is(err, masterdb.ErrNotFound) || err == nil && now.Version != c.Version {
			return lease.ErrLost
		}
		if err != nil {
			return err
		}
		abandoned = now.ClaimedBy != nil
		return l.Acquire(ctx, tx)
	})
	return abandoned, err
}

// saveTokens saves new tokens and releases the lease. The tokens exist nowhere
// else, so it tries until ctx is done. It revokes tokens of a connection that has
// ended meanwhile.
func (s *Service) saveTokens(ctx context.Context, store stoa.StoreID, l lease.Lease, t supabase.Tokens) error {
	sealed, err := s.seal(store, t)
	if err != nil {
		return err
	}
	tick := time.NewTicker(saveInterval)
	defer tick.Stop()
	for {
		saved, err := s.trySaveTokens(ctx, store, l, sealed, t.Expires)
		switch {
		case err == nil && !saved:
			s.revoke(ctx, store, t.Refresh)
			return lease.ErrLost
		case err == nil:
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// trySaveTokens reports whether the tokens are saved, by this attempt or by an earlier
// one whose answer was lost.
func (s *Service) trySaveTokens(ctx context.Context, store stoa.StoreID, l lease.Lease, sealed string, expires time.Time) (saved bool, err error) {
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		err := l.Release(ctx, tx)
		if err == nil {
			_, err = tx.Exec(ctx, `UPDATE supabase_connections SET tokens = $2, version = version + 1, expires_at = $3, updated_at = $4 WHERE store_id = $1`,
				store, sealed, expires, tx.Now)
		}
		if err != nil && !errors.Is(err, lease.ErrLost) {
			return err
		}
		if err := tx.Get(ctx, &saved, `SELECT count(*) > 0 FROM supabase_connections WHERE store_id = $1 AND tokens = $2`, store, sealed); err != nil {
			return err
		}
		return tx.Notify(renewalTopic, store.String())
	})
	return saved, err
}

// outcome describes how a renewal without new tokens ended. The zero value means that the
// refresh token can still be used.
type outcome struct {
	unknown bool   // it is unknown whether the refresh token is spent
	refused Reason // not "": the owner has to consent again, for this reason
}

// endRenewal records the outcome and ends the lease, unless another owner has it.
func (s *Service) endRenewal(ctx context.Context, store stoa.StoreID, l lease.Lease, o outcome) error {
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := s.endLease(ctx, tx, l, o); err != nil {
			return err
		}
		if o.refused != "" {
			_, err := tx.Exec(ctx, `UPDATE supabase_connections SET state = 'reconnect', reason = $2, tokens = '', updated_at = $3 WHERE store_id = $1`,
				store, string(o.refused), tx.Now)
			if err != nil {
				return err
			}
		}
		return tx.Notify(renewalTopic, store.String())
	})
	if errors.Is(err, lease.ErrLost) {
		return nil
	}
	return err
}

// endLease ends the lease of a renewal. With an unknown outcome it expires the lease, so
// that the next renewal finds the owner recorded. Otherwise it releases the lease.
func (s *Service) endLease(ctx context.Context, tx *masterdb.Tx, l lease.Lease, o outcome) error {
	if o.unknown {
		return l.Expire(ctx, tx)
	}
	return l.Release(ctx, tx)
}

// Release expires, in tx, the renewals of a process that has ended. The next
// renewal finds out whether their refresh tokens are spent.
func (s *Service) Release(ctx context.Context, tx *masterdb.Tx, process string) error {
	n, err := renewals.ExpireProcess(ctx, tx, process)
	if err != nil || n == 0 {
		return err
	}
	return tx.Notify(renewalTopic, "")
}
