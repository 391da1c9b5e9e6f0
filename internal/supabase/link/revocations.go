package link

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/supabase"
)

// RevokeTokens is the job that revokes tokens of ended connections at Supabase.
type RevokeTokens struct{}

// Kind implements jobs.Args.
func (RevokeTokens) Kind() string { return "stoa.supabase_revoke" }

// RevokeEvery is the interval of the job, RevokeTimeout the timeout of one run.
const (
	RevokeEvery   = 10 * time.Minute
	RevokeTimeout = 5 * time.Minute
)

const (
	revokeCall    = 10 * time.Second   // timeout of one call
	revokesPerRun = 20                 // calls of one run
	revokeFor     = 7 * 24 * time.Hour // how long failing calls are repeated
	maxRevokeWait = 6 * time.Hour      // the longest pause between two attempts
)

// endConnections deletes the connections that condition selects, and keeps their tokens to be
// revoked. It returns their stores and the ids of the revocations.
func endConnections(ctx context.Context, tx *masterdb.Tx, condition string, arg any) (stores []stoa.StoreID, revocations []string, err error) {
	var ended []struct {
		StoreID stoa.StoreID
		Tokens  string
	}
	if err := tx.Select(ctx, &ended, `DELETE FROM supabase_connections WHERE `+condition+` RETURNING store_id, tokens`, arg); err != nil {
		return nil, nil, err
	}
	for _, c := range ended {
		stores = append(stores, c.StoreID)
		if c.Tokens == "" { // Supabase has ended the connection
			continue
		}
		id := c.StoreID.String() + "/" + rand.Text()
		if _, err := tx.Exec(ctx, `INSERT INTO supabase_revocations (id, tokens, next_at, created_at) VALUES ($1, $2, $3, $3)`, id, c.Tokens, tx.Now); err != nil {
			return nil, nil, err
		}
		revocations = append(revocations, id)
	}
	return stores, revocations, nil
}

// revocationOwner returns the owner that the tokens of a revocation were sealed for.
func revocationOwner(id string) string {
	store, _, _ := strings.Cut(id, "/")
	return tokensOwner(store)
}

// RunRevocations revokes the tokens of ended connections. An attempt that fails is repeated
// after a growing pause, for a week; then the tokens are deleted, which is logged.
func (s *Service) RunRevocations(ctx context.Context, _ RevokeTokens) error {
	if err := s.dropRevocations(ctx); err != nil || s.configured() != nil {
		return err
	}
	for range revokesPerRun {
		id, err := s.claimRevocation(ctx)
		if errors.Is(err, masterdb.ErrNotFound) {
			return nil
		}
		if err == nil {
			err = s.tryRevocation(ctx, id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// claimRevocation selects a revocation that is due and sets the time of its next attempt, so
// that no other process makes the same attempt. It fails with masterdb.ErrNotFound when none
// is due.
func (s *Service) claimRevocation(ctx context.Context) (id string, err error) {
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var due struct {
			ID       string
			Attempts int
		}
		err := tx.Get(ctx, &due, `SELECT id, attempts FROM supabase_revocations WHERE next_at <= $1 ORDER BY next_at, id LIMIT 1`+tx.ForUpdate(), tx.Now)
		if err != nil {
			return err
		}
		id = due.ID
		wait := min(RevokeEvery<<min(due.Attempts, 10), maxRevokeWait)
		_, err = tx.Exec(ctx, `UPDATE supabase_revocations SET attempts = attempts + 1, next_at = $2 WHERE id = $1`, id, tx.Now.Add(wait))
		return err
	})
	return id, err
}

// tryRevocation revokes the tokens of one revocation at Supabase and deletes it. A failure of
// Supabase is only logged.
func (s *Service) tryRevocation(ctx context.Context, id string) error {
	var sealed string
	err := s.db.Get(ctx, &sealed, `SELECT tokens FROM supabase_revocations WHERE id = $1`, id)
	if errors.Is(err, masterdb.ErrNotFound) { // another process was faster
		return nil
	}
	if err != nil {
		return err
	}
	store, err := stoa.ParseID[stoa.StoreID](strings.SplitN(id, "/", 2)[0])
	if err != nil {
		return err
	}
	t, err := s.unseal(store, sealed)
	if err == nil {
		err = s.revokeAt(ctx, t.Refresh)
	}
	if err != nil {
		s.opts.Log.WarnContext(ctx, "connection to Supabase not revoked there", "store", store.String(), "err", err)
		return nil
	}
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM supabase_revocations WHERE id = $1`, id)
		return err
	})
}

// revokeAt calls Supabase. Tokens that it does not accept any more are revoked.
func (s *Service) revokeAt(ctx context.Context, refresh keyring.Secret) error {
	ctx, cancel := context.WithTimeout(ctx, revokeCall)
	defer cancel()
	if err := s.opts.API.Revoke(ctx, refresh); !supabase.Refused(err) {
		return err
	}
	return nil
}

// dropRevocations deletes the revocations that have failed for too long.
func (s *Service) dropRevocations(ctx context.Context) error {
	var dropped []string
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		dropped = nil
		return tx.Select(ctx, &dropped, `DELETE FROM supabase_revocations WHERE created_at < $1 RETURNING id`, tx.Now.Add(-revokeFor))
	})
	for _, id := range dropped {
		store, _, _ := strings.Cut(id, "/")
		s.opts.Log.WarnContext(ctx, "connection to Supabase given up without its revocation there; its owner can revoke it at Supabase", "store", store)
	}
	return err
}
