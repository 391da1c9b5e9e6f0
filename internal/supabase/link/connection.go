package link

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/keyrotation"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/supabase"
)

// State is the state of a store's connection to Supabase.
type State string

// The states of a connection. Reconnect means that the owner has to consent again. A
// store that already has its database works without the connection.
const (
	None      State = "none"
	Connected State = "connected"
	Reconnect State = "reconnect"
)

// Reason is why the owner has to consent again.
type Reason string

// The reasons.
const (
	Refused    Reason = "refused"     // access was revoked at Supabase, or has expired there
	AnswerLost Reason = "answer_lost" // new tokens were issued but did not arrive
)

// Connection is the public part of a store's connection.
type Connection struct {
	State       State
	Reason      Reason // "" unless the state is Reconnect
	ConnectedAt *time.Time
	ProjectRef  string // of the store's database; "" when it is not in a project, or not yet
}

// Connection returns the store's connection to Supabase.
func (s *Service) Connection(ctx context.Context, p authz.Principal, store stoa.StoreID) (Connection, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ReadStore); err != nil {
		return Connection{}, err
	}
	c := Connection{State: None}
	var project struct{ Ref string }
	err := s.db.Get(ctx, &project, `SELECT coalesce(ref, '') AS ref FROM supabase_projects WHERE store_id = $1`, store)
	if err != nil && !errors.Is(err, masterdb.ErrNotFound) {
		return Connection{}, err
	}
	c.ProjectRef = project.Ref
	row, err := s.read(ctx, s.db, store)
	if stoa.CodeOf(err) == stoa.SupabaseNotConnected {
		return c, nil
	}
	if err != nil {
		return Connection{}, err
	}
	c.State, c.ConnectedAt = row.State, &row.CreatedAt
	if row.Reason != nil {
		c.Reason = *row.Reason
	}
	return c, nil
}

// connect saves the tokens that a consent has given.
func (s *Service) connect(ctx context.Context, p authz.Principal, store stoa.StoreID, t supabase.Tokens) error {
	sealed, err := s.seal(store, t)
	if err != nil {
		return err
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO supabase_connections (store_id, user_id, state, tokens, version, expires_at, created_at, updated_at)
			VALUES ($1, $2, 'connected', $3, 1, $4, $5, $5)
			ON CONFLICT (store_id) DO UPDATE SET user_id = excluded.user_id, state = excluded.state, reason = NULL, tokens = excluded.tokens,
				version = supabase_connections.version + 1, expires_at = excluded.expires_at, claimed_by = NULL, claimed_until = NULL,
				created_at = excluded.created_at, updated_at = excluded.updated_at`, store, p.UserID, sealed, t.Expires, tx.Now)
		if err != nil {
			return err
		}
		// The check comes after the insert, whose foreign key locks the store, since the
		// store may be deleted concurrently.
		if _, err := authz.Check(ctx, tx, p, store, authz.ConnectDatabase); err != nil {
			return err
		}
		if err := audit.Record(ctx, tx, p, audit.Event{Action: audit.SupabaseConnected, Store: store}); err != nil {
			return err
		}
		return tx.Notify(renewalTopic, store.String())
	})
	s.forget(store)
	return err
}

// Disconnect ends the store's connection and revokes its tokens at Supabase. When that fails,
// the job repeats it. A store that has its database keeps it.
func (s *Service) Disconnect(ctx context.Context, p authz.Principal, store stoa.StoreID) error {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ConnectDatabase); err != nil {
		return err
	}
	var revocations []string
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM supabase_consents WHERE store_id = $1`, store); err != nil {
			return err
		}
		var ended []stoa.StoreID
		var err error
		ended, revocations, err = endConnections(ctx, tx, `store_id = $1`, store)
		if err != nil || len(ended) == 0 {
			return err
		}
		if err := audit.Record(ctx, tx, p, audit.Event{Action: audit.SupabaseLeft, Store: store}); err != nil {
			return err
		}
		return tx.Notify(renewalTopic, store.String())
	})
	s.forget(store)
	if err != nil || s.configured() != nil {
		return err
	}
	for _, id := range revocations {
		if err := s.tryRevocation(context.WithoutCancel(ctx), id); err != nil {
			s.opts.Log.WarnContext(ctx, "connection to Supabase not revoked there yet", "store", store.String(), "err", err)
		}
	}
	return nil
}

// ForgetUser deletes, in tx, the connections that a user has consented to and the
// user's open consents. A job revokes the tokens at Supabase. Stores keep their databases.
func ForgetUser(ctx context.Context, tx *masterdb.Tx, p authz.Principal) error {
	if _, err := tx.Exec(ctx, `DELETE FROM supabase_consents WHERE user_id = $1`, p.UserID); err != nil {
		return err
	}
	left, _, err := endConnections(ctx, tx, `user_id = $1`, p.UserID)
	if err != nil {
		return err
	}
	for _, store := range left {
		if err := audit.Record(ctx, tx, p, audit.Event{Action: audit.SupabaseLeft, Store: store}); err != nil {
			return err
		}
	}
	return nil
}

// revoke revokes tokens at Supabase. A failure is only logged.
func (s *Service) revoke(ctx context.Context, store stoa.StoreID, refresh keyring.Secret) {
	if err := s.revokeAt(context.WithoutCancel(ctx), refresh); err != nil {
		s.opts.Log.WarnContext(ctx, "connection to Supabase not revoked there", "store", store.String(), "err", err)
	}
}

// connection is a row of supabase_connections.
type connection struct {
	State        State
	Reason       *Reason
	Tokens       string
	Version      int64
	ExpiresAt    time.Time
	ClaimedBy    *string
	ClaimedUntil *time.Time
	CreatedAt    time.Time
}

func (s *Service) read(ctx context.Context, q masterdb.Querier, store stoa.StoreID) (connection, error) {
	var c connection
	err := q.Get(ctx, &c, `SELECT state, reason, tokens, version, expires_at, claimed_by, claimed_until, created_at
		FROM supabase_connections WHERE store_id = $1`, store)
	if errors.Is(err, masterdb.ErrNotFound) {
		return c, stoa.Errorf(stoa.SupabaseNotConnected, "This store is not connected to Supabase. Connect it to its owner's Supabase account first.")
	}
	return c, err
}

// Sealed returns the columns that hold encrypted values.
func Sealed() []keyrotation.Column {
	return []keyrotation.Column{
		{Table: "supabase_connections", Key: "store_id", Name: "tokens", Owner: tokensOwner},
		{Table: "supabase_revocations", Key: "id", Name: "tokens", Owner: revocationOwner},
		{Table: "supabase_projects", Key: "store_id", Name: "secrets", Owner: planOwner},
	}
}

// sealedTokens is the plaintext form of tokens before encryption.
type sealedTokens struct {
	Access  string `json:"access"`
	Refresh string `json:"refresh"`
}

func tokensOwner(store string) string { return "supabase_connections/" + store }

func (s *Service) seal(store stoa.StoreID, t supabase.Tokens) (string, error) {
	plain, err := json.Marshal(sealedTokens{Access: t.Access.Reveal(), Refresh: t.Refresh.Reveal()})
	if err != nil {
		return "", err
	}
	return s.ring.Seal(plain, tokensOwner(store.String()))
}

func (s *Service) unseal(store stoa.StoreID, envelope string) (supabase.Tokens, error) {
	plain, err := s.ring.Open(envelope, tokensOwner(store.String()))
	if err != nil { // the key is no longer in the ring
		return supabase.Tokens{}, stoa.Errorf(stoa.SupabaseReconnect, "The stored connection to Supabase cannot be decrypted. Connect Supabase again.").WithCause(err)
	}
	var t sealedTokens
	if err := json.Unmarshal(plain, &t); err != nil {
		return supabase.Tokens{}, errors.New("tokens cannot be read") // the cause would contain the tokens
	}
	return supabase.Tokens{Access: keyring.NewSecret(t.Access), Refresh: keyring.NewSecret(t.Refresh)}, nil
}
