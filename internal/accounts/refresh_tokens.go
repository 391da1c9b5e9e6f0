package accounts

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
)

const (
	// successorLabel separates successors of refresh tokens from the signatures of access
	// tokens, which are made with the same keys.
	successorLabel = "stoa refresh token successor\n"

	// maxSuccessors is how many successors the re-use of a token follows, each with a
	// statement per key.
	maxSuccessors = 10
)

// successorOf returns the refresh token that follows token. It is derived, and not random, so
// that a re-use of token gives the same one although only hashes are stored. Whoever has the
// token but not the key cannot compute it.
func successorOf(token keyring.Secret, key []byte) keyring.Secret {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(successorLabel + token.Reveal()))
	return keyring.NewSecret(refreshPrefix + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
}

// nextRefreshToken returns the refresh token for the answer to a use of token, whose session
// is locked: a new one for the first use, and for a re-use the newest that follows it. So a
// session has one refresh token that is not spent, and of two parties that have it one will
// use it after the other's grace, which revokes the session.
func (a *Accounts) nextRefreshToken(ctx context.Context, tx *masterdb.Tx, found tokenRow, token keyring.Secret) (keyring.Secret, error) {
	if found.SpentAt == nil {
		return a.issueSuccessor(ctx, tx, found.SessionID, token)
	}
	for range maxSuccessors {
		next, spent, err := a.findSuccessor(ctx, tx, token)
		switch {
		case errors.Is(err, masterdb.ErrNotFound):
			return a.replaceSuccessor(ctx, tx, found.SessionID, token)
		case err != nil || !spent:
			return next, err
		}
		token = next
	}
	// This one was spent after the first, so it is in its own grace.
	return token, nil
}

// issueSuccessor stores the successor of token that the current key derives.
func (a *Accounts) issueSuccessor(ctx context.Context, tx *masterdb.Tx, id stoa.SessionID, token keyring.Secret) (keyring.Secret, error) {
	_, key := a.tokens.ring.Current()
	next := successorOf(token, key)
	return next, storeRefreshToken(ctx, tx, id, next)
}

// findSuccessor returns the stored successor of a spent token, and whether it is spent. Each
// key is tried: the first use may have been on a replica with another current key. It fails
// with masterdb.ErrNotFound when no key gives a token that was issued.
func (a *Accounts) findSuccessor(ctx context.Context, tx *masterdb.Tx, token keyring.Secret) (next keyring.Secret, spent bool, err error) {
	for _, id := range a.tokens.ring.IDs() {
		key, err := a.tokens.ring.Key(id)
		if err != nil {
			return keyring.Secret{}, false, err
		}
		next := successorOf(token, key)
		var row struct{ SpentAt *time.Time }
		err = tx.Get(ctx, &row, `SELECT spent_at FROM refresh_tokens WHERE hash = $1`, next.Hash())
		if !errors.Is(err, masterdb.ErrNotFound) {
			return next, row.SpentAt != nil, err
		}
	}
	return keyring.Secret{}, false, masterdb.ErrNotFound
}

// replaceSuccessor issues a successor of token where the one that was issued cannot be derived:
// its key has been removed, or it is of a release that made random ones. That one is spent,
// since two tokens that can be used would let a thief go on beside the owner.
func (a *Accounts) replaceSuccessor(ctx context.Context, tx *masterdb.Tx, id stoa.SessionID, token keyring.Secret) (keyring.Secret, error) {
	if err := tx.ExecLater(ctx, `UPDATE refresh_tokens SET spent_at = $1 WHERE session_id = $2 AND spent_at IS NULL`, tx.Now, id); err != nil {
		return keyring.Secret{}, err
	}
	return a.issueSuccessor(ctx, tx, id, token)
}

func storeRefreshToken(ctx context.Context, tx *masterdb.Tx, id stoa.SessionID, token keyring.Secret) error {
	return tx.ExecLater(ctx, `INSERT INTO refresh_tokens (hash, session_id, created_at) VALUES ($1, $2, $3)`, token.Hash(), id, tx.Now)
}
