package accounts

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
)

// exportBatch is how many rows of an export are in memory at the same time.
const exportBatch = 500

// exportTime limits one statement of an export.
const exportTime = 30 * time.Second

// Export is everything that the master database stores about one person. It is read
// while it is written.
type Export struct {
	db   *masterdb.DB
	user User
}

// Export begins the export of everything that the master database stores about the
// caller. It is recorded in the audit log. A browser's session needs a recent
// authentication (reauthentication_required). It fails with forbidden for an API key
// and for an operator who acts as the user.
func (a *Accounts) Export(ctx context.Context, p authz.Principal) (*Export, error) {
	if err := p.InPerson(); err != nil {
		return nil, err
	}
	if p.Browser && !p.RecentlyAuthenticated {
		return nil, authz.ErrReauthenticate()
	}
	e := &Export{db: a.db}
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		if e.user, err = lockCaller(ctx, tx, p); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.DataExported})
	})
	return e, err
}

// Name returns the name of the file.
func (e *Export) Name() string { return "stoa-account-" + e.user.ID.String() + ".json" }

// exportedProfile is the account itself.
type exportedProfile struct {
	ID            stoa.UserID `json:"id"`
	Email         string      `json:"email"`
	EmailVerified bool        `json:"emailVerified"`
	FirstName     string      `json:"firstName"`
	LastName      string      `json:"lastName"`
	Role          string      `json:"role"`
	CreatedAt     time.Time   `json:"createdAt"`
	UpdatedAt     time.Time   `json:"updatedAt"`

	QuotaStores           *int `json:"quotaStores"`
	QuotaManagedDatabases *int `json:"quotaManagedDatabases"`
}

type exportedFactor struct {
	CreatedAt         time.Time  `json:"createdAt"`
	ConfirmedAt       *time.Time `json:"confirmedAt"`
	LockedUntil       *time.Time `json:"lockedUntil"`
	RecoveryCodesLeft int        `json:"recoveryCodesLeft"`
}

type exportedPasskey struct {
	ID           PasskeyID  `json:"id"`
	Name         string     `json:"name"`
	CreatedAt    time.Time  `json:"createdAt"`
	LastUsedAt   *time.Time `json:"lastUsedAt"`
	Passwordless bool       `json:"passwordless"`
}

type exportedSession struct {
	ID              stoa.SessionID `json:"id"`
	UserAgent       string         `json:"userAgent"`
	Address         string         `json:"address"`
	Browser         bool           `json:"browser"`
	Impersonator    *stoa.UserID   `json:"impersonator"`
	CreatedAt       time.Time      `json:"createdAt"`
	LastUsedAt      time.Time      `json:"lastUsedAt"`
	AuthenticatedAt *time.Time     `json:"authenticatedAt"`
	ExpiresAt       time.Time      `json:"expiresAt"`
	RevokedAt       *time.Time     `json:"revokedAt"`
}

type exportedStore struct {
	ID        stoa.StoreID `json:"id"`
	Slug      string       `json:"slug"`
	Name      string       `json:"name"`
	Status    string       `json:"status"`
	CreatedAt time.Time    `json:"createdAt"`
}

type exportedMembership struct {
	ID    stoa.StoreID `json:"storeId"`
	Slug  string       `json:"slug"`
	Name  string       `json:"name"`
	Role  string       `json:"role"`
	Since time.Time    `json:"since"`
}

type exportedInvitation struct {
	ID         stoa.InvitationID `json:"id"`
	StoreID    stoa.StoreID      `json:"storeId"`
	Email      string            `json:"email"`
	Role       string            `json:"role"`
	CreatedAt  time.Time         `json:"createdAt"`
	SentAt     time.Time         `json:"sentAt"`
	ExpiresAt  time.Time         `json:"expiresAt"`
	AcceptedAt *time.Time        `json:"acceptedAt"`
	RevokedAt  *time.Time        `json:"revokedAt"`
}

type exportedKey struct {
	ID         stoa.KeyID   `json:"id"`
	StoreID    stoa.StoreID `json:"storeId"`
	Name       string       `json:"name"`
	Prefix     string       `json:"prefix"`
	Scopes     string       `json:"scopes"`
	CreatedAt  time.Time    `json:"createdAt"`
	ExpiresAt  *time.Time   `json:"expiresAt"`
	LastUsedAt *time.Time   `json:"lastUsedAt"`
	RevokedAt  *time.Time   `json:"revokedAt"`
}

type exportedEmailChange struct {
	ID             changeID   `json:"id"`
	OldEmail       string     `json:"oldEmail"`
	NewEmail       string     `json:"newEmail"`
	OldConfirmedAt *time.Time `json:"oldConfirmedAt"`
	NewConfirmedAt *time.Time `json:"newConfirmedAt"`
	CreatedAt      time.Time  `json:"createdAt"`
	ExpiresAt      time.Time  `json:"expiresAt"`
	EndedAt        *time.Time `json:"endedAt"`
	Applied        bool       `json:"applied"`
}

type exportedMailRequest struct {
	ID        requestID `json:"id"`
	Purpose   string    `json:"purpose"`
	CreatedAt time.Time `json:"createdAt"`
}

type exportedConnection struct {
	ID        stoa.StoreID `json:"storeId"`
	State     string       `json:"state"`
	CreatedAt time.Time    `json:"createdAt"`
	UpdatedAt time.Time    `json:"updatedAt"`
}

type exportedConsent struct {
	ID        stoa.StoreID `json:"storeId"`
	CreatedAt time.Time    `json:"createdAt"`
	ExpiresAt time.Time    `json:"expiresAt"`
}

type exportedRecharge struct {
	ID          stoa.StoreID `json:"storeId"`
	Enabled     bool         `json:"enabled"`
	CardBrand   string       `json:"cardBrand"`
	CardLast4   string       `json:"cardLast4"`
	CardExpires string       `json:"cardExpires"`
	UpdatedAt   time.Time    `json:"updatedAt"`
}

type exportedPurchase struct {
	ID          stoa.PurchaseID `json:"id"`
	StoreID     stoa.StoreID    `json:"storeId"`
	Provider    string          `json:"provider"`
	Status      string          `json:"status"`
	AmountMinor int64           `json:"amountMinor"`
	Currency    string          `json:"currency"`
	Automatic   bool            `json:"automatic"`
	CreatedAt   time.Time       `json:"createdAt"`
	PaidAt      *time.Time      `json:"paidAt"`
}

type exportedEntry struct {
	ID        stoa.EventID    `json:"id"`
	CreatedAt time.Time       `json:"createdAt"`
	StoreID   *stoa.StoreID   `json:"storeId"`
	Action    string          `json:"action"`
	Outcome   string          `json:"outcome"`
	Address   string          `json:"address"`
	RequestID string          `json:"requestId"`
	Details   json.RawMessage `json:"details"`
}

// exportWriter writes the members of one JSON object.
type exportWriter struct {
	*bufio.Writer
	members int
}

// name begins a member.
func (w *exportWriter) name(name string) {
	if w.members++; w.members > 1 {
		_ = w.WriteByte(',') // Flush returns its error
	}
	_, _ = w.WriteString("\n" + `"` + name + `": `)
}

func (w *exportWriter) value(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

func (w *exportWriter) member(name string, v any) error {
	w.name(name)
	return w.value(v)
}

// Write writes the export as one JSON object. It keeps at most exportBatch rows in
// memory. Rows that change meanwhile may be in either state. After an error the object
// is incomplete.
func (e *Export) Write(ctx context.Context, out io.Writer) error {
	w := &exportWriter{Writer: bufio.NewWriter(out)}
	_ = w.WriteByte('{') // Flush returns its error
	if err := w.member("format", "stoa account export 1"); err != nil {
		return err
	}
	if err := w.member("exportedAt", e.db.Now().UTC()); err != nil {
		return err
	}
	for _, section := range []func(context.Context, *exportWriter) error{e.writeAccount, e.writeLists, e.writeAudit} {
		if err := section(ctx, w); err != nil {
			return err
		}
	}
	_, _ = w.WriteString("\n}\n") // Flush returns its error
	return w.Flush()
}

// writeAccount writes what there is at most once.
func (e *Export) writeAccount(ctx context.Context, w *exportWriter) error {
	var profile exportedProfile
	err := e.db.Get(ctx, &profile, `
		SELECT id, email, email_verified, first_name, last_name, role, created_at, updated_at, quota_stores, quota_managed_databases
		FROM users WHERE id = $1`, e.user.ID)
	if err != nil {
		return err
	}
	if err := w.member("profile", profile); err != nil {
		return err
	}
	var found *exportedFactor
	var factor exportedFactor
	err = e.db.Get(ctx, &factor, `
		SELECT created_at, confirmed_at, locked_until,
			(SELECT count(*) FROM recovery_codes r WHERE r.user_id = f.user_id AND r.used_at IS NULL) AS recovery_codes_left
		FROM second_factors f WHERE user_id = $1`, e.user.ID)
	switch {
	case err == nil:
		found = &factor
	case !errors.Is(err, masterdb.ErrNotFound):
		return err
	}
	return w.member("secondFactor", found)
}

// writeLists writes the lists, the newest row first. Each statement takes the user, the
// id that the rows come before, and their number.
func (e *Export) writeLists(ctx context.Context, w *exportWriter) error {
	const invitations = `SELECT id, store_id, email, role, created_at, sent_at, expires_at, accepted_at, revoked_at FROM invitations`
	return errors.Join(
		writeRows(ctx, e, w, "sessions", func(r exportedSession) [16]byte { return r.ID }, e.user.ID, `
			SELECT id, user_agent, address, cookie_hash IS NOT NULL AS browser, impersonator, created_at, last_used_at, authenticated_at,
				expires_at, revoked_at
			FROM sessions WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3`),
		writeRows(ctx, e, w, "passkeys", func(r exportedPasskey) [16]byte { return r.ID }, e.user.ID, `
			SELECT id, name, created_at, last_used_at, passwordless FROM passkeys WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3`),
		writeRows(ctx, e, w, "storesCreated", func(r exportedStore) [16]byte { return r.ID }, e.user.ID, `
			SELECT id, slug, name, status, created_at FROM stores WHERE created_by = $1 AND id < $2 ORDER BY id DESC LIMIT $3`),
		writeRows(ctx, e, w, "memberships", func(r exportedMembership) [16]byte { return r.ID }, e.user.ID, `
			SELECT m.store_id AS id, s.slug, s.name, m.role, m.created_at AS since FROM store_members m JOIN stores s ON s.id = m.store_id
			WHERE m.user_id = $1 AND m.store_id < $2 ORDER BY m.store_id DESC LIMIT $3`),
		writeRows(ctx, e, w, "invitationsSent", func(r exportedInvitation) [16]byte { return r.ID }, e.user.ID,
			invitations+` WHERE invited_by = $1 AND id < $2 ORDER BY id DESC LIMIT $3`),
		writeRows(ctx, e, w, "invitationsReceived", func(r exportedInvitation) [16]byte { return r.ID }, e.user.Email,
			invitations+` WHERE email = $1 AND id < $2 ORDER BY id DESC LIMIT $3`),
		writeRows(ctx, e, w, "apiKeys", func(r exportedKey) [16]byte { return r.ID }, e.user.ID, `
			SELECT id, store_id, name, prefix, scopes, created_at, expires_at, last_used_at, revoked_at
			FROM api_keys WHERE created_by = $1 AND id < $2 ORDER BY id DESC LIMIT $3`),
		writeRows(ctx, e, w, "emailChanges", func(r exportedEmailChange) [16]byte { return r.ID }, e.user.ID, `
			SELECT id, old_email, new_email, old_confirmed_at, new_confirmed_at, created_at, expires_at, ended_at, applied
			FROM email_changes WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3`),
		writeRows(ctx, e, w, "mailsRequested", func(r exportedMailRequest) [16]byte { return r.ID }, e.user.Email, `
			SELECT id, purpose, created_at FROM email_requests WHERE email = $1 AND id < $2 ORDER BY id DESC LIMIT $3`),
		writeRows(ctx, e, w, "supabaseConnections", func(r exportedConnection) [16]byte { return r.ID }, e.user.ID, `
			SELECT store_id AS id, state, created_at, updated_at FROM supabase_connections
			WHERE user_id = $1 AND store_id < $2 ORDER BY store_id DESC LIMIT $3`),
		writeRows(ctx, e, w, "autoRecharges", func(r exportedRecharge) [16]byte { return r.ID }, e.user.ID, `
			SELECT store_id AS id, enabled, card_brand, card_last4, card_expires, updated_at FROM auto_recharges
			WHERE user_id = $1 AND store_id < $2 ORDER BY store_id DESC LIMIT $3`),
		writeRows(ctx, e, w, "purchases", func(r exportedPurchase) [16]byte { return r.ID }, e.user.ID, `
			SELECT id, store_id, provider, status, amount_minor, currency, automatic, created_at, paid_at FROM purchases
			WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3`),
		e.writeConsents(ctx, w),
	)
}

// writeConsents writes the open consents, which are few: a store has at most 20.
func (e *Export) writeConsents(ctx context.Context, w *exportWriter) error {
	list := []exportedConsent{}
	err := e.db.Select(ctx, &list, `SELECT store_id AS id, created_at, expires_at FROM supabase_consents WHERE user_id = $1
		ORDER BY created_at DESC LIMIT $2`, e.user.ID, exportBatch)
	if err != nil {
		return err
	}
	return w.member("supabaseConsents", list)
}

// writeRows writes one list in batches. key returns the id by which the rows are
// ordered.
func writeRows[Row any](ctx context.Context, e *Export, w *exportWriter, name string, key func(Row) [16]byte, of any, query string) error {
	return writeBatches(ctx, w, name, func(ctx context.Context, before [16]byte) ([]Row, error) {
		var rows []Row
		err := e.db.Select(ctx, &rows, query, of, stoa.EventID(before), exportBatch)
		return rows, err
	}, key)
}

func writeBatches[Row any](ctx context.Context, w *exportWriter, name string, read func(context.Context, [16]byte) ([]Row, error), key func(Row) [16]byte) error {
	w.name(name)
	before, written := [16]byte(page.LastID[stoa.EventID]()), 0
	for {
		reading, cancel := context.WithTimeout(ctx, exportTime)
		rows, err := read(reading, before)
		cancel()
		if err != nil {
			return err
		}
		for _, row := range rows {
			separator := ",\n  "
			if written == 0 {
				separator = "[\n  "
			}
			_, _ = w.WriteString(separator) // Flush returns its error
			if err := w.value(row); err != nil {
				return err
			}
			written++
		}
		if len(rows) < exportBatch {
			break
		}
		before = key(rows[len(rows)-1])
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if written == 0 {
		_ = w.WriteByte('[') // Flush returns its error
	}
	return w.WriteByte(']')
}

// writeAudit writes the entries of what the person did.
func (e *Export) writeAudit(ctx context.Context, w *exportWriter) error {
	return writeBatches(ctx, w, "auditEntries", func(ctx context.Context, before [16]byte) ([]exportedEntry, error) {
		entries, err := audit.ReadUserLog(ctx, e.db, e.user.ID, stoa.EventID(before), exportBatch)
		rows := make([]exportedEntry, len(entries))
		for i, e := range entries {
			rows[i] = exportedEntry{ID: e.ID, CreatedAt: e.CreatedAt, StoreID: e.StoreID, Action: e.Action, Outcome: string(e.Outcome),
				Address: e.Address, RequestID: e.RequestID, Details: json.RawMessage(e.Details)}
		}
		return rows, err
	}, func(r exportedEntry) [16]byte { return r.ID })
}
