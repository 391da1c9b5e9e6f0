package cloud

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/supabase"
)

// margin is how long an access token must hold yet to be used.
const margin = time.Minute

// recheck is how often those look who wait for another one's renewal.
const recheck = 50 * time.Millisecond

// errBusy: somebody else renews the tokens, or has.
var errBusy = errors.New("cloud: the tokens are another one's to renew")

// with calls fn with an access token of the store's owner, and once more with
// another one when that token is not accepted.
func (s *Service) with(ctx context.Context, store stoa.StoreID, fn func(token keyring.Secret) error) error {
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

// token returns an access token with its version. That of the version spent
// is not accepted, whatever its time; 0 is none.
//
// A refresh token is good for one use. So whoever needs other tokens claims
// the connection in the master first, for as long as a call may take, and all
// others, on whatever replica, wait for the outcome.
func (s *Service) token(ctx context.Context, store stoa.StoreID, spent int64) (keyring.Secret, int64, error) {
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	for {
		c, err := s.read(ctx, s.db, store)
		if err != nil {
			return keyring.Secret{}, 0, err
		}
		if c.State == Reconnect {
			return keyring.Secret{}, 0, errReconnect(c.Reason)
		}
		if c.Version != spent && time.Until(c.ExpiresAt) > margin {
			t, err := s.unseal(store, c.Tokens)
			return t.Access, c.Version, err
		}
		t, err := s.renewAside(ctx, store, c)
		if !errors.Is(err, errBusy) {
			return t.Access, c.Version + 1, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return keyring.Secret{}, 0, ctx.Err()
		}
	}
}

func errReconnect(why *Reason) error {
	if why != nil && *why == AnswerLost {
		return stoa.Errorf(stoa.SupabaseReconnect, "Supabase renewed the connection, but its answer was lost. Connect Supabase again; the store's database is not affected.")
	}
	return stoa.Errorf(stoa.SupabaseReconnect, "Access to the Supabase account was revoked or has expired. Connect Supabase again; the store's database is not affected.")
}

// renewAside is renew for a caller who may leave before it has ended.
func (s *Service) renewAside(ctx context.Context, store stoa.StoreID, c connection) (supabase.Tokens, error) {
	type outcome struct {
		tokens supabase.Tokens
		err    error
	}
	ended := make(chan outcome, 1)
	s.renewals.Go(func() {
		var o outcome
		o.err = stoa.CatchPanic(func() (err error) {
			o.tokens, err = s.renew(ctx, store, c)
			return err
		})
		ended <- o
	})
	select {
	case o := <-ended:
		return o.tokens, o.err
	case <-ctx.Done():
		return supabase.Tokens{}, ctx.Err()
	}
}

// Wait returns when no tokens are being renewed any more. New ones are lost
// when the master is closed before.
func (s *Service) Wait() { s.renewals.Wait() }

// renew spends the refresh token. The new tokens are stored before anybody
// uses them. It fails with errBusy when that is somebody else's to do.
func (s *Service) renew(ctx context.Context, store stoa.StoreID, c connection) (supabase.Tokens, error) {
	old, err := s.unseal(store, c.Tokens)
	if err != nil {
		return supabase.Tokens{}, err
	}
	me := s.claimant()
	// Once claimed, it is brought to an end, whether or not the caller waits.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.Claim)
	defer cancel()
	if err := s.claim(ctx, store, c, me); err != nil {
		return supabase.Tokens{}, err
	}
	t, err := s.opts.API.Refresh(ctx, old.Refresh)
	switch {
	case err == nil:
		return t, s.keep(ctx, store, c, me, t)
	case supabase.Refused(err):
		why := Refused
		if c.ClaimedBy != nil { // an earlier try had no answer: it may have spent the token
			why = AnswerLost
		}
		s.forget(store) // what was listed may not be so any more, and nobody can ask
		s.opts.Log.WarnContext(ctx, "a connection to Supabase has ended", "store", store.String(), "reason", string(why), "err", err)
		return t, errors.Join(errReconnect(&why), s.settle(ctx, store, c, me,
			`state = 'reconnect', reason = '`+string(why)+`', tokens = '', claimed_by = NULL, claimed_until = NULL`))
	case stoa.CodeOf(err) == stoa.RateLimited, supabase.StatusOf(err)/100 == 4 && c.ClaimedBy == nil:
		return t, errors.Join(err, s.settle(ctx, store, c, me, `claimed_by = NULL, claimed_until = NULL`))
	}
	// Whether the token is spent, the next one to try will find out.
	return t, errors.Join(err, s.settle(ctx, store, c, me, `claimed_until = NULL`))
}

func (s *Service) claim(ctx context.Context, store stoa.StoreID, c connection, me string) error {
	if c.ClaimedUntil != nil && c.ClaimedUntil.After(s.db.Now()) {
		return errBusy
	}
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE supabase_connections SET claimed_by = $3, claimed_until = $4
			WHERE store_id = $1 AND version = $2 AND state = 'connected' AND (claimed_until IS NULL OR claimed_until <= $5)
			AND (claimed_by IS NULL) = $6`, store, c.Version, me, tx.Now.Add(s.opts.Claim), tx.Now, c.ClaimedBy == nil)
		if err == nil && n == 0 {
			return errBusy
		}
		return err
	})
}

// keep stores new tokens. They exist nowhere else: it tries as long as the
// claim holds. Tokens of a connection that has ended meanwhile are ended too.
func (s *Service) keep(ctx context.Context, store stoa.StoreID, c connection, me string, t supabase.Tokens) error {
	sealed, err := s.seal(store, t)
	if err != nil {
		return err
	}
	tick := time.NewTicker(5 * recheck)
	defer tick.Stop()
	for {
		var kept bool
		err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
			_, err := tx.Exec(ctx, `UPDATE supabase_connections SET tokens = $4, version = version + 1, expires_at = $5,
				claimed_by = NULL, claimed_until = NULL, updated_at = $6 WHERE store_id = $1 AND version = $2 AND claimed_by = $3`,
				store, c.Version, me, sealed, t.Expires, tx.Now)
			if err != nil {
				return err
			}
			// Asked by what is there: an earlier try may have worked unheard.
			return tx.Get(ctx, &kept, `SELECT count(*) > 0 FROM supabase_connections WHERE store_id = $1 AND tokens = $2`, store, sealed)
		})
		switch {
		case err == nil && !kept:
			s.revoke(ctx, store, t.Refresh)
			return errBusy
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

// settle ends the claim otherwise.
func (s *Service) settle(ctx context.Context, store stoa.StoreID, c connection, me, set string) error {
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE supabase_connections SET `+set+`, updated_at = $4
			WHERE store_id = $1 AND version = $2 AND claimed_by = $3`, store, c.Version, me, tx.Now)
		return err
	})
}

// Release has the renewals that a process was making when it ended not waited for
// any more, in tx. Whether their tokens are spent, the next one to try will find out.
func (s *Service) Release(ctx context.Context, tx *masterdb.Tx, process string) error {
	prefix := process + "."
	_, err := tx.Exec(ctx, `UPDATE supabase_connections SET claimed_until = NULL WHERE substr(claimed_by, 1, $2) = $1`, prefix, len(prefix))
	return err
}
