package access

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/page"
)

// Outcome is how an act ended.
type Outcome string

// The outcomes. Denied is what a right was missing for, Failed what did not
// prove itself.
const (
	Success Outcome = "success"
	Denied  Outcome = "denied"
	Failed  Outcome = "failed"
)

// What is written to the audit log.
const (
	Registered         = "auth.registered"
	SignedIn           = "auth.sign_in" // or tried to
	SignedOut          = "auth.sign_out"
	TokenReused        = "auth.token_reused" //nolint:gosec // an act, not a credential
	SessionRevoked     = "auth.session_revoked"
	PasswordChanged    = "auth.password_changed"
	PasswordReset      = "auth.password_reset"
	EmailVerified      = "auth.email_verified"
	FactorEnabled      = "auth.second_factor_enabled"
	FactorDisabled     = "auth.second_factor_disabled"
	RecoveryCodeUsed   = "auth.recovery_code_used"
	MemberInvited      = "member.invited"
	InvitationRevoked  = "member.invitation_revoked"
	MemberJoined       = "member.joined"
	MemberRoleChanged  = "member.role_changed"
	MemberRemoved      = "member.removed"
	OwnershipMoved     = "member.ownership_transferred"
	KeyCreated         = "key.created"
	KeyRevoked         = "key.revoked"
	StoreCreated       = "store.created"
	StoreUpdated       = "store.updated"
	StoreSuspended     = "store.suspended"
	StoreResumed       = "store.resumed"
	StoreDeleting      = "store.deletion_scheduled"
	StoreRestored      = "store.restored"
	StoreDeleted       = "store.deleted"
	HostnameClaimed    = "hostname.claimed"
	HostnameVerified   = "hostname.verified" // or tried to
	HostnamePrimary    = "hostname.made_primary"
	HostnameRemoved    = "hostname.removed"
	HostnameLost       = "hostname.lost" // its record is gone from the DNS
	DatabaseConnected  = "database.connected"
	ConnectRetried     = "database.connect_retried"
	DatabaseTested     = "database.tested"
	CredentialsRotated = "database.credentials_rotated" // or refused
	SupabaseConnected  = "supabase.connected"
	SupabaseLeft       = "supabase.disconnected"
	CreditsGranted     = "credits.granted"
	CreditSettings     = "credits.settings_changed"
	RechargeChanged    = "credits.auto_recharge_changed"
	RechargeStopped    = "credits.auto_recharge_stopped" // by the platform
	CardRequested      = "credits.card_requested"
	CardSaved          = "credits.card_saved"
	PurchaseStarted    = "credits.purchase_started"
	OperatorActed      = "operator.access"
	OperatorPromoted   = "operator.promoted"
	OperatorDemoted    = "operator.demoted"
	QuotasSet          = "operator.quotas_set"
	Impersonated       = "operator.impersonated"
	PriceSet           = "prices.set"
	KeysRotated        = "keys.rotated"
	TenantsMigrated    = "tenants.migrated"
	RoleGranted        = "platform.role_granted"
	RetentionSet       = "audit.retention_set"
)

// Event is one entry of the audit log to be. The zero store is none; the zero
// outcome is Success. Details never hold a secret.
type Event struct {
	Action  string
	Store   stoa.StoreID
	Outcome Outcome
	Details map[string]string
}

// Record writes to the audit log, in the transaction of the act: neither is
// there without the other. The zero principal is the platform itself; one of
// CommandLine is the operator there.
func Record(ctx context.Context, tx *masterdb.Tx, p Principal, e Event) error {
	details, err := detailsOf(p, e)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO audit_events (id, user_id, store_id, action, outcome, address, request_id, details, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		stoa.NewID[stoa.EventID](), orNull(p.UserID), orNull(e.Store), e.Action, string(cmp.Or(e.Outcome, Success)),
		p.Origin.Address, p.Origin.RequestID, details, tx.Now)
	return err
}

// detailsOf returns an entry's details as JSON, with what the principal adds.
func detailsOf(p Principal, e Event) (string, error) {
	details := maps.Clone(e.Details)
	if details == nil {
		details = map[string]string{}
	}
	if p.IsKey() {
		details["apiKey"] = p.Key.ID.String()
	}
	if !p.Impersonator.IsZero() {
		details["impersonator"] = p.Impersonator.String()
	}
	if p.Origin.ClientRequestID != "" {
		details["clientRequestId"] = p.Origin.ClientRequestID
	}
	if p.Origin.Command != "" {
		details["command"] = p.Origin.Command
	}
	text, err := json.Marshal(details)
	return string(text), err
}

// orNull leaves an id that was never set out of the row.
func orNull[K any](id stoa.ID[K]) *stoa.ID[K] {
	if id.IsZero() {
		return nil
	}
	return &id
}

// recordOperator records that an operator reaches into a store that is not
// theirs, or over all of them (the zero store), once for each request and
// action. A request is known by the platform's own id, never by a client's.
func recordOperator(ctx context.Context, h masterdb.Handle, p Principal, store stoa.StoreID, a Action) error {
	e := Event{Action: OperatorActed, Store: store, Details: map[string]string{"action": string(a)}}
	if p.Origin.RequestID != "" {
		details, err := detailsOf(p, e)
		if err != nil {
			return err
		}
		var known int
		err = h.Get(ctx, &known, `
			SELECT count(*) FROM audit_events WHERE action = 'operator.access' AND request_id = $1
				AND coalesce(CAST(store_id AS text), '') = $2 AND user_id = $3 AND details = $4`,
			p.Origin.RequestID, textOf(store), p.UserID, details)
		if err != nil || known > 0 {
			return err
		}
	}
	return h.Within(ctx, func(tx *masterdb.Tx) error { return Record(ctx, tx, p, e) })
}

// Entry is one entry of the audit log as it is read.
type Entry struct {
	ID        stoa.EventID
	CreatedAt time.Time
	UserID    *stoa.UserID // nil: the command line, which Details then name, or the platform itself
	Email     *string      // of the user, if there still is one
	StoreID   *stoa.StoreID
	Action    string
	Outcome   Outcome
	Address   string
	RequestID string
	Details   string // a JSON object of strings
}

// AuditFilter says which entries are wanted. Zero fields leave all.
type AuditFilter struct {
	Action   string
	Outcome  string
	UserID   stoa.UserID
	From, To *time.Time // from <= time < to
	Limit    int        // 1 to 100, or 0 for 20
	Cursor   string     // of the page before
}

// AuditPage is one page of the log, newest first.
type AuditPage struct {
	Entries    []Entry
	NextCursor *string
}

// ReadAuditLog returns a page of what happened to the store. It fails with
// invalid_request, and as Check does.
func ReadAuditLog(ctx context.Context, q masterdb.Handle, p Principal, store stoa.StoreID, f AuditFilter) (AuditPage, error) {
	if _, err := Check(ctx, q, p, store, ReadAudit); err != nil {
		return AuditPage{}, err
	}
	return f.read(ctx, q, `e.store_id = $1`, store)
}

// ReadPlatformLog is ReadAuditLog over all stores and people, for operators.
func ReadPlatformLog(ctx context.Context, q masterdb.Handle, p Principal, f AuditFilter) (AuditPage, error) {
	if err := CheckOperator(ctx, q, p, "audit"); err != nil {
		return AuditPage{}, err
	}
	return f.read(ctx, q, `$1 = ''`, "")
}

func (f AuditFilter) read(ctx context.Context, q masterdb.Querier, where string, arg any) (AuditPage, error) {
	var faults stoa.Invalid
	bounds := page.ByID[stoa.EventID](f.Limit, f.Cursor, &faults)
	if err := faults.Err(); err != nil {
		return AuditPage{}, err
	}
	var entries []Entry
	err := q.Select(ctx, &entries, `
		SELECT e.id, e.created_at, e.user_id, u.email, e.store_id, e.action, e.outcome, e.address, e.request_id, e.details
		FROM audit_events e LEFT JOIN users u ON u.id = e.user_id
		WHERE `+where+` AND e.id < $2 AND ($3 = '' OR e.action = $3) AND ($4 = '' OR e.outcome = $4)
			AND ($5 = '' OR CAST(e.user_id AS text) = $5)
			AND e.created_at >= $6 AND e.created_at < $7
		ORDER BY e.id DESC LIMIT $8`,
		arg, bounds.Before, f.Action, f.Outcome, textOf(f.UserID), orTime(f.From, time.Time{}), orTime(f.To, endOfTime), bounds.Rows())
	if err != nil {
		return AuditPage{}, err
	}
	entries, next := page.Cut(entries, bounds.Limit, func(e Entry) string { return e.ID.String() })
	return AuditPage{Entries: entries, NextCursor: next}, nil
}

var endOfTime = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func orTime(t *time.Time, otherwise time.Time) time.Time {
	if t == nil {
		return otherwise
	}
	return t.UTC().Truncate(time.Microsecond)
}

// textOf is empty for an id that was never set.
func textOf[K any](id stoa.ID[K]) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}
