package webhooks

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"strconv"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/keyrotation"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/version"
)

// Overlap is how long the secret before a rotation still signs.
const Overlap = 24 * time.Hour

const (
	secretPrefix = "whsec_"
	secretBytes  = 32 // Standard Webhooks asks for 24 to 64
)

func secretOwner(id string) string { return "webhook_endpoints/" + id }

// SealedSecrets returns the encrypted columns of this package.
func SealedSecrets() []keyrotation.Column {
	return []keyrotation.Column{
		{Table: "webhook_endpoints", Key: "id", Name: "secret", Owner: secretOwner},
		{Table: "webhook_endpoints", Key: "id", Name: "old_secret", Owner: secretOwner},
	}
}

// newSecret returns a new secret, and its encrypted form.
func (s *Service) newSecret(id stoa.WebhookID) (keyring.Secret, string, error) {
	secret := NewSecret()
	sealed, err := s.opts.Ring.Seal([]byte(secret.Reveal()), secretOwner(id.String()))
	return secret, sealed, err
}

// NewSecret returns a new secret for signatures.
func NewSecret() keyring.Secret {
	raw := make([]byte, secretBytes)
	_, _ = rand.Read(raw) // it never fails
	return keyring.NewSecret(secretPrefix + base64.StdEncoding.EncodeToString(raw))
}

// RotateSecret gives the endpoint a new secret and returns it. For a day deliveries are signed
// with the old one as well. A second rotation within that day ends the oldest secret at once:
// a form that may be sent twice gives the version that it was made for. It fails with
// edit_conflict when match does not hold.
func (s *Service) RotateSecret(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.WebhookID, match version.Match) (Endpoint, keyring.Secret, error) {
	if err := s.check(ctx, s.db, p, store, authz.ManageWebhooks); err != nil {
		return Endpoint{}, keyring.Secret{}, err
	}
	secret, sealed, err := s.newSecret(id)
	if err != nil {
		return Endpoint{}, keyring.Secret{}, err
	}
	var e Endpoint
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		if e, err = read(ctx, tx, store, id, tx.ForUpdate()); err != nil {
			return err
		}
		if err := match.Check(e.ETag()); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE webhook_endpoints SET old_secret = secret, old_until = $2, secret = $3, version = version + 1, updated_at = $4 WHERE id = $1`,
			id, tx.Now.Add(Overlap), sealed, tx.Now)
		if err != nil {
			return err
		}
		if e, err = read(ctx, tx, store, id, ""); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.WebhookRotated, Store: store, Details: e.details()})
	})
	if err != nil {
		return Endpoint{}, keyring.Secret{}, err
	}
	return e, secret, nil
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
