package link

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/supabase"
)

// ConsentTTL is how long an owner has to consent.
const ConsentTTL = 10 * time.Minute

// Consent is an open request for the owner's consent.
type Consent struct {
	URL     string         // at Supabase, for the owner's browser
	Browser keyring.Secret // proves that the browser that returns is the one that started the consent
	Expires time.Time
}

// state is sent through the owner's browser, encrypted and authenticated. Its row can be
// used once and contains the store and the user.
type state struct {
	ID       string `json:"id"`
	Verifier string `json:"verifier"`
	Browser  string `json:"browser"`
}

const stateOwner = "supabase_consents"

// maxConsents limits the open consents of one store.
const maxConsents = 20

// Authorize starts to connect the store to a Supabase account.
func (s *Service) Authorize(ctx context.Context, p authz.Principal, store stoa.StoreID) (Consent, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ConnectDatabase); err != nil {
		return Consent{}, err
	}
	if err := s.configured(); err != nil {
		return Consent{}, err
	}
	verifier := supabase.NewVerifier()
	st := state{ID: rand.Text(), Verifier: verifier.Reveal(), Browser: rand.Text()}
	plain, err := json.Marshal(st)
	if err != nil {
		return Consent{}, err
	}
	sealed, err := s.ring.Seal(plain, stateOwner)
	if err != nil {
		return Consent{}, err
	}
	c := Consent{URL: s.opts.API.AuthorizeURL(s.opts.Redirect, sealed, verifier), Browser: keyring.NewSecret(st.Browser)}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		c.Expires = tx.Now.Add(ConsentTTL)
		if _, err := tx.Exec(ctx, `DELETE FROM supabase_consents WHERE id IN (
			SELECT id FROM supabase_consents WHERE expires_at < $1 ORDER BY expires_at LIMIT 100)`, tx.Now); err != nil {
			return err
		}
		// Only the newest consents of a store are kept: each call adds a row.
		if _, err := tx.Exec(ctx, `DELETE FROM supabase_consents WHERE id IN (SELECT id FROM supabase_consents
			WHERE store_id = $1 ORDER BY created_at DESC, id LIMIT 1000 OFFSET $2)`, store, maxConsents-1); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO supabase_consents (id, store_id, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)`,
			st.ID, store, p.UserID, tx.Now, c.Expires)
		return err
	})
	return c, err
}

// Return contains what the browser sends when it returns from Supabase.
type Return struct {
	State   keyring.Secret
	Code    keyring.Secret
	Browser keyring.Secret // of Consent, if it is the same browser
	// Confirmed means that the person at another browser has seen which store would be
	// connected, and agrees.
	Confirmed bool
}

// Unconfirmed is the error when the browser that returns is not the one that started the
// consent. An attacker may have sent the owner of a Supabase account there, to have that
// account connected to the attacker's store. Nothing has been changed.
type Unconfirmed struct {
	Store string // its name
	Email string // of the user who asked
}

func (u *Unconfirmed) Error() string { return "the consent came back in another browser" }

// Finish creates the store's connection from a consent and replaces an earlier one. It
// fails with token_invalid for a state that this platform did not issue or that was used,
// with token_expired after ConsentTTL, and as authz.Check does when the user who started
// the consent may no longer connect the store.
func (s *Service) Finish(ctx context.Context, r Return) error {
	st, err := s.openState(r.State)
	if err != nil {
		return err
	}
	if err := s.configured(); err != nil {
		return err
	}
	same := subtle.ConstantTimeCompare([]byte(st.Browser), []byte(r.Browser.Reveal())) == 1
	if !same && !r.Confirmed {
		return s.unconfirmed(ctx, st)
	}
	p, store, err := s.consumeState(ctx, st)
	if err != nil {
		return err
	}
	tokens, err := s.opts.API.Exchange(ctx, r.Code, s.opts.Redirect, keyring.NewSecret(st.Verifier))
	if supabase.Refused(err) {
		return stoa.Errorf(stoa.TokenInvalid, "Supabase does not accept this consent any more. Connect Supabase again.").WithCause(err)
	}
	if err != nil {
		return err
	}
	if err := s.connect(ctx, p, store, tokens); err != nil {
		s.revoke(ctx, store, tokens.Refresh)
		return err
	}
	return nil
}

// Decline deletes a consent that the owner has refused.
func (s *Service) Decline(ctx context.Context, sealed keyring.Secret) error {
	st, err := s.openState(sealed)
	if err == nil {
		_, _, err = s.consumeState(ctx, st)
	}
	return err
}

func errState() error {
	return stoa.Errorf(stoa.TokenInvalid, "This way back from Supabase is not one that this platform gave, or it was used already. Connect Supabase again.")
}

func (s *Service) openState(sealed keyring.Secret) (state, error) {
	var st state
	plain, err := s.ring.Open(sealed.Reveal(), stateOwner)
	if err != nil {
		return st, errState()
	}
	if err := json.Unmarshal(plain, &st); err != nil || st.ID == "" || st.Browser == "" {
		return st, errState()
	}
	return st, nil
}

// consumeState invalidates the state. It returns the user who started the consent and the
// store, if the user may still connect it.
func (s *Service) consumeState(ctx context.Context, st state) (authz.Principal, stoa.StoreID, error) {
	var row struct {
		StoreID   stoa.StoreID
		UserID    stoa.UserID
		ExpiresAt time.Time
	}
	var now time.Time
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		now = tx.Now
		return tx.Get(ctx, &row, `DELETE FROM supabase_consents WHERE id = $1 RETURNING store_id, user_id, expires_at`, st.ID)
	})
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		return authz.Principal{}, stoa.StoreID{}, errState()
	case err != nil:
		return authz.Principal{}, stoa.StoreID{}, err
	case !row.ExpiresAt.After(now):
		return authz.Principal{}, stoa.StoreID{}, stoa.Errorf(stoa.TokenExpired, "The time to consent is over. Connect Supabase again.")
	}
	p := authz.Principal{UserID: row.UserID}
	_, err = authz.Check(ctx, s.db, p, row.StoreID, authz.ConnectDatabase)
	return p, row.StoreID, err
}

func (s *Service) unconfirmed(ctx context.Context, st state) error {
	var u Unconfirmed
	err := s.db.Get(ctx, &u, `SELECT s.name AS store, u.email FROM supabase_consents c
		JOIN stores s ON s.id = c.store_id JOIN users u ON u.id = c.user_id WHERE c.id = $1`, st.ID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return errState()
	}
	if err != nil {
		return err
	}
	return &u
}
