package webhooks

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/quotas"
	"github.com/stoahq/stoa/internal/version"
)

// State is the state of an endpoint.
type State string

// The states. Nothing is sent to a paused endpoint, which its owner has stopped, nor to a
// disabled one, which the platform has. Both go on where they were when they are enabled.
const (
	Enabled  State = "enabled"
	Paused   State = "paused"
	Disabled State = "disabled"
)

// The reasons why the platform disables an endpoint.
const (
	Failing = "failing" // no success for days
	Gone    = "gone"    // it answered 410
)

// Endpoint is an address that events are sent to.
type Endpoint struct {
	ID             stoa.WebhookID
	StoreID        *stoa.StoreID // nil: the platform's, for the events of all stores
	URL            string
	Description    string
	TypeList       string `db:"types"` // separated by spaces; "": all
	State          State
	DisabledReason string
	OldUntil       *time.Time // until then the secret before is in force too
	Waiting        int64      // events that are published for it and not sent yet, at most
	Replaying      bool
	FailingSince   *time.Time // nil: the last round had a success
	NextAt         *time.Time
	Version        int64
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// Types returns the types of events that the endpoint receives; empty: all.
func (e Endpoint) Types() []string { return strings.Fields(e.TypeList) }

const selectEndpoint = `SELECT id, store_id, url, description, types, state, disabled_reason,
	old_until, CASE WHEN last_position > position THEN last_position - position ELSE 0 END AS waiting,
	replay_until > replay_position AS replaying, failing_since, next_at, version, created_at, updated_at FROM webhook_endpoints `

// Change is what to set of an endpoint; nil leaves a field as it is.
type Change struct {
	// ID is that of a new endpoint; zero: any. A form that is sent again, with the same id,
	// makes no second endpoint.
	ID          stoa.WebhookID
	URL         *string
	Description *string
	Types       *[]string
	Enabled     *bool
	// SkipMissed, with Enabled: go on with what happens from now on. Otherwise an endpoint
	// receives what it has missed, of the last 30 days.
	SkipMissed bool
	Match      version.Match // against the endpoint's ETag
}

const (
	maxURL         = 2000 // bytes
	maxDescription = 200  // characters
)

// check fails unless the caller may do this with the store's endpoints; the zero store is the
// platform, which is for operators.
func (s *Service) check(ctx context.Context, h masterdb.Handle, p authz.Principal, store stoa.StoreID, a authz.Action) error {
	if store.IsZero() {
		return authz.CheckOperator(ctx, h, p, a)
	}
	_, err := authz.Check(ctx, h, p, store, a)
	return err
}

// ofStore begins the SQL condition of a store's rows; storeText is what follows.
const ofStore = `coalesce(CAST(store_id AS text), '') = `

func storeText(store stoa.StoreID) string {
	if store.IsZero() {
		return ""
	}
	return store.String()
}

// List returns the store's endpoints, newest first. The zero store has those of the platform.
func (s *Service) List(ctx context.Context, p authz.Principal, store stoa.StoreID) ([]Endpoint, error) {
	if err := s.check(ctx, s.db, p, store, authz.ReadWebhooks); err != nil {
		return nil, err
	}
	endpoints := []Endpoint{}
	where, args := `store_id = $1`, []any{store}
	if store.IsZero() {
		where, args = `store_id IS NULL`, nil
	}
	err := s.db.Select(ctx, &endpoints, selectEndpoint+`WHERE `+where+` AND state <> 'deleted' ORDER BY id DESC`, args...)
	return endpoints, err
}

// Get returns one endpoint of the store. It fails with not_found.
func (s *Service) Get(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.WebhookID) (Endpoint, error) {
	if err := s.check(ctx, s.db, p, store, authz.ReadWebhooks); err != nil {
		return Endpoint{}, err
	}
	return read(ctx, s.db, store, id, "")
}

func read(ctx context.Context, q masterdb.Querier, store stoa.StoreID, id stoa.WebhookID, lock string) (Endpoint, error) {
	var e Endpoint
	err := q.Get(ctx, &e, selectEndpoint+`WHERE id = $1 AND state <> 'deleted' AND `+ofStore+`$2`+lock, id, storeText(store))
	if errors.Is(err, masterdb.ErrNotFound) {
		return e, stoa.Errorf(stoa.NotFound, "There is no such endpoint.")
	}
	return e, err
}

// Create adds an endpoint and returns its secret, which cannot be read again. The endpoint
// receives what happens from now on. It fails with invalid_request, with quota_exceeded, with
// idempotency_conflict when there is an endpoint with the id of c and, until the caller's
// address is verified, with email_unverified.
func (s *Service) Create(ctx context.Context, p authz.Principal, store stoa.StoreID, c Change) (Endpoint, keyring.Secret, error) {
	if err := s.check(ctx, s.db, p, store, authz.ManageWebhooks); err != nil {
		return Endpoint{}, keyring.Secret{}, err
	}
	e := Endpoint{ID: c.ID, State: Enabled}
	if e.ID.IsZero() {
		e.ID = stoa.NewID[stoa.WebhookID]()
	}
	if err := e.apply(c, true); err != nil {
		return Endpoint{}, keyring.Secret{}, err
	}
	secret, sealed, err := s.newSecret(e.ID)
	if err != nil {
		return Endpoint{}, keyring.Secret{}, err
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if !p.IsKey() {
			if err := authz.CheckVerified(ctx, tx, p); err != nil {
				return err
			}
		}
		if err := s.checkQuota(ctx, tx, store); err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `INSERT INTO webhook_endpoints (id, store_id, url, description, types, state, secret, position, last_position, created_by, created_at, updated_at)
			SELECT $1, $2, $3, $4, $5, $6, $7, position, position, $8, $9, $9 FROM event_stream WHERE id = 1 ON CONFLICT (id) DO NOTHING`,
			e.ID, orNull(store), e.URL, e.Description, e.TypeList, string(e.State), sealed, p.UserID, tx.Now)
		if err != nil {
			return err
		}
		if n == 0 {
			return stoa.Errorf(stoa.IdempotencyConflict,
				"This form has made an endpoint already, whose secret was shown once. If you have not kept it, give the endpoint a new secret.")
		}
		if e, err = read(ctx, tx, store, e.ID, ""); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.WebhookCreated, Store: store, Details: e.details()})
	})
	if err != nil {
		return Endpoint{}, keyring.Secret{}, err
	}
	return e, secret, nil
}

// details are what the audit log says of the endpoint. The query of a URL may hold a secret.
func (e Endpoint) details() map[string]string {
	u, _ := url.Parse(e.URL)
	return map[string]string{"endpoint": e.ID.String(), "host": u.Host}
}

func orNull[K any](id stoa.ID[K]) *stoa.ID[K] {
	if id.IsZero() {
		return nil
	}
	return &id
}

// maxPlatformEndpoints is the number of endpoints of the platform.
const maxPlatformEndpoints = 50

// checkQuota fails with quota_exceeded when the store has as many endpoints as allowed.
func (s *Service) checkQuota(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	limit, where, args := maxPlatformEndpoints, `store_id IS NULL`, []any(nil)
	if !store.IsZero() {
		if err := quotas.LockStore(ctx, tx, store); err != nil {
			return err
		}
		limit, where, args = s.opts.Limit, `store_id = $1`, []any{store}
	}
	var used int
	if err := tx.Get(ctx, &used, `SELECT count(*) FROM webhook_endpoints WHERE `+where+` AND state <> 'deleted'`, args...); err != nil {
		return err
	}
	if quotas.Exceeded(limit, used) {
		return quotas.Error(quotas.Webhooks, limit, used, "There are %d webhook endpoints, and %d are allowed. Delete one that is not used.", used, limit)
	}
	return nil
}

// apply sets the fields of the change. It fails with invalid_request, naming every fault.
func (e *Endpoint) apply(c Change, created bool) error {
	var faults stoa.Invalid
	switch {
	case c.URL != nil:
		e.URL = strings.TrimSpace(*c.URL)
		if fault := urlFault(e.URL); fault != "" {
			faults.Add("url", "%s", fault)
		}
	case created:
		faults.Add("url", "is required")
	}
	if c.Description != nil {
		e.Description = strings.TrimSpace(*c.Description)
		switch {
		case utf8.RuneCountInString(e.Description) > maxDescription:
			faults.Add("description", "must be at most %d characters long", maxDescription)
		case !utf8.ValidString(e.Description) || strings.ContainsFunc(e.Description, unicode.IsControl) || strings.ContainsFunc(e.Description, stoa.IsHidden):
			faults.Add("description", "must not contain control or invisible characters")
		}
	}
	if c.Types != nil {
		types := slices.Compact(slices.Sorted(slices.Values(*c.Types)))
		for _, t := range types {
			if _, ok := events.KindOf(events.Type(t)); !ok {
				faults.Add("types", "there is no type %.60q; the catalogue is in the documentation of the API", t)
				break
			}
		}
		e.TypeList = strings.Join(types, " ")
	}
	if c.Enabled != nil {
		e.State, e.DisabledReason = Enabled, ""
		if !*c.Enabled {
			e.State = Paused
		}
	}
	return faults.Err()
}

// urlFault returns what is wrong with the address of an endpoint, or "".
func urlFault(text string) string {
	u, err := url.Parse(text)
	switch {
	case len(text) > maxURL || !utf8.ValidString(text):
		return "must be at most 2,000 bytes of text"
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return "must be a whole address, such as https://example.com/webhooks"
	case u.Scheme != "https" && u.Scheme != "http":
		return "must begin with https://"
	case !stoa.HasValidPort(u):
		return "must have a port between 1 and 65535, or none"
	case u.User != nil:
		return "must not contain a user or password; check the signature instead"
	case u.Fragment != "":
		return "must not contain a fragment (#)"
	}
	return ""
}

// Update changes an endpoint. It fails with not_found, with invalid_request and,
// when Match does not hold, with edit_conflict.
func (s *Service) Update(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.WebhookID, c Change) (Endpoint, error) {
	if err := s.check(ctx, s.db, p, store, authz.ManageWebhooks); err != nil {
		return Endpoint{}, err
	}
	var e Endpoint
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		if e, err = read(ctx, tx, store, id, tx.ForUpdate()); err != nil {
			return err
		}
		if err := c.Match.Check(e.ETag()); err != nil {
			return err
		}
		before := e.State
		if err := e.apply(c, false); err != nil {
			return err
		}
		// An endpoint that is enabled begins without the faults of before.
		again := before != Enabled && e.State == Enabled
		_, err = tx.Exec(ctx, `UPDATE webhook_endpoints SET url = $2, description = $3, types = $4, state = $5, disabled_reason = $6, version = version + 1, updated_at = $7,
				failures = CASE WHEN $8 THEN 0 ELSE failures END, failing_since = CASE WHEN $8 THEN NULL ELSE failing_since END,
				next_at = CASE WHEN $8 THEN $7 ELSE next_at END, slow = slow AND NOT $8, position = CASE WHEN $9 THEN last_position ELSE position END
			WHERE id = $1`, id, e.URL, e.Description, e.TypeList, string(e.State), e.DisabledReason, tx.Now, again, again && c.SkipMissed)
		if err != nil {
			return err
		}
		if e, err = read(ctx, tx, store, id, ""); err != nil {
			return err
		}
		tx.AfterCommit(s.signals.wake)
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.WebhookUpdated, Store: store, Details: e.details()})
	})
	return e, err
}

// ETag returns the version of what an owner can change of the endpoint.
func (e Endpoint) ETag() string { return e.ID.String()[24:] + "v" + itoa(e.Version) }

// Delete removes an endpoint. What was sent to it is kept as long as for others. It fails
// with not_found and, when match does not hold, with edit_conflict.
func (s *Service) Delete(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.WebhookID, match version.Match) error {
	if err := s.check(ctx, s.db, p, store, authz.ManageWebhooks); err != nil {
		return err
	}
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		e, err := read(ctx, tx, store, id, tx.ForUpdate())
		if err != nil {
			return err
		}
		if err := match.Check(e.ETag()); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE webhook_endpoints SET state = 'deleted', secret = '', old_secret = NULL, next_at = NULL, updated_at = $2 WHERE id = $1`, id, tx.Now)
		if err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.WebhookDeleted, Store: store, Details: e.details()})
	})
}
