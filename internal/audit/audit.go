// Package audit records who did what, and reads that record. It owns the tables
// audit_events and audit_retention. Whether a caller may read the log is a
// question for package authz, which imports this one.
package audit

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Actor is who acts, as an entry of the audit log names them. The zero Actor is
// the platform itself.
type Actor struct {
	UserID       stoa.UserID // zero: a command or the platform acts
	KeyID        stoa.KeyID  // zero unless an API key acts
	Impersonator stoa.UserID // the operator who acts as the user; zero: none
	Origin       Origin
}

// Subject is the caller that requests an action, such as the principal of a request.
type Subject interface {
	Actor() Actor
}

// Origin is where a request comes from.
type Origin struct {
	Address   string
	RequestID string // the platform's id of the request or of the run of a command
	// ClientRequestID is the name that a trusted proxy gave the request. It helps
	// to find the request in the proxy's log; no decision depends on it.
	ClientRequestID string
	Command         string // the command, such as "stores suspend"; empty for a request
}

// Outcome is the result of an action.
type Outcome string

// The outcomes. Denied is an action for which a permission was missing, Failed
// one with a wrong credential or a failed verification.
const (
	Success Outcome = "success"
	Denied  Outcome = "denied"
	Failed  Outcome = "failed"
)

// The actions that the audit log records.
const (
	Registered         = "auth.registered"
	SignedIn           = "auth.sign_in" // or an attempt
	SignedOut          = "auth.sign_out"
	TokenReused        = "auth.token_reused" //nolint:gosec // an action, not a credential
	SessionRevoked     = "auth.session_revoked"
	Reauthenticated    = "auth.reauthenticated"
	NameChanged        = "auth.name_changed"
	EmailChangeAsked   = "auth.email_change_requested"
	EmailChangeDropped = "auth.email_change_withdrawn"
	EmailConfirmed     = "auth.email_change_confirmed" // at one of the two addresses
	EmailChanged       = "auth.email_changed"
	DataExported       = "auth.data_exported"
	AccountDeleted     = "auth.account_deleted"
	PasswordChanged    = "auth.password_changed"
	PasswordReset      = "auth.password_reset"
	EmailVerified      = "auth.email_verified"
	FactorEnabled      = "auth.second_factor_enabled"
	FactorDisabled     = "auth.second_factor_disabled"
	RecoveryCodeUsed   = "auth.recovery_code_used"
	PasskeyAdded       = "auth.passkey_added"   //nolint:gosec // an action, not a credential
	PasskeyRenamed     = "auth.passkey_renamed" //nolint:gosec // an action, not a credential
	PasskeyRemoved     = "auth.passkey_removed" //nolint:gosec // an action, not a credential
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
	HostnameVerified   = "hostname.verified" // or an attempt
	HostnamePrimary    = "hostname.made_primary"
	HostnameRemoved    = "hostname.removed"
	HostnameLost       = "hostname.lost" // the DNS record is gone
	DatabaseConnected  = "database.connected"
	ConnectRetried     = "database.connect_retried"
	DatabaseTested     = "database.tested"
	CredentialsRotated = "database.credentials_rotated" // or an attempt
	CredentialsShown   = "database.credentials_shown"
	DatabasePassword   = "database.password_reset"
	MoveStarted        = "database.move_started"
	MoveAborted        = "database.move_aborted"
	MoveRolledBack     = "database.move_rolled_back" // asked for
	MoveFinished       = "database.move_finished"    // asked for
	MoveSwapped        = "database.moved"            // the store uses another database
	MoveEnded          = "database.move_ended"
	BackupRequested    = "backup.requested"
	BackupDeleted      = "backup.deleted"
	BackupDownloaded   = "backup.downloaded"
	BackupUploaded     = "backup.uploaded"
	BackupScheduled    = "backup.schedule_changed"
	BackupRestore      = "backup.restore_requested"
	BackupRestored     = "backup.restored" // or an attempt
	BackupCloned       = "backup.cloned"   // into another store
	SupabaseConnected  = "supabase.connected"
	SupabaseLeft       = "supabase.disconnected"
	CreditsGranted     = "credits.granted"
	CreditsVerified    = "credits.verified" // begun, or its result
	CreditSettings     = "credits.settings_changed"
	RechargeChanged    = "credits.auto_recharge_changed"
	RechargeStopped    = "credits.auto_recharge_stopped" // by the platform
	CardRequested      = "credits.card_requested"
	CardSaved          = "credits.card_saved"
	PurchaseStarted    = "credits.purchase_started"
	WebhookCreated     = "webhook.created"
	WebhookUpdated     = "webhook.updated"
	WebhookDeleted     = "webhook.deleted"
	WebhookRotated     = "webhook.secret_rotated"
	WebhookReplayed    = "webhook.replayed"
	WebhookResent      = "webhook.resent" // one delivery
	WebhookTested      = "webhook.tested"
	WebhookDisabled    = "webhook.disabled" // by the platform
	OperatorActed      = "operator.access"
	OperatorPromoted   = "operator.promoted"
	OperatorDemoted    = "operator.demoted"
	JobRetried         = "operator.job_retried"
	JobCancelled       = "operator.job_cancelled"
	UserSuspended      = "operator.user_suspended"
	UserResumed        = "operator.user_resumed"
	QuotasSet          = "operator.quotas_set"
	BulkBegun          = "operator.bulk_action_begun"
	Impersonated       = "operator.impersonated"
	PriceSet           = "prices.set"
	KeysRotated        = "keys.rotated"
	TenantsMigrated    = "tenants.migrated"
	RoleGranted        = "platform.role_granted"
	MasterBackedUp     = "platform.backed_up"
	MasterRestored     = "platform.restored"
	RetentionSet       = "audit.retention_set"
)

// StoreActions are the actions that the log of a store can hold, in the order in which
// a list of them is easy to read.
var StoreActions = []string{
	StoreCreated, StoreUpdated, StoreSuspended, StoreResumed, StoreDeleting, StoreRestored, StoreDeleted,
	HostnameClaimed, HostnameVerified, HostnamePrimary, HostnameRemoved, HostnameLost,
	MemberInvited, InvitationRevoked, MemberJoined, MemberRoleChanged, MemberRemoved, OwnershipMoved,
	KeyCreated, KeyRevoked,
	DatabaseConnected, ConnectRetried, DatabaseTested, CredentialsRotated, CredentialsShown, DatabasePassword,
	MoveStarted, MoveAborted, MoveRolledBack, MoveFinished, MoveSwapped, MoveEnded, SupabaseConnected, SupabaseLeft,
	BackupRequested, BackupScheduled, BackupDownloaded, BackupUploaded, BackupDeleted, BackupRestore, BackupRestored, BackupCloned,
	CreditsGranted, CreditSettings, RechargeChanged, RechargeStopped, CardRequested, CardSaved, PurchaseStarted,
	WebhookCreated, WebhookUpdated, WebhookDeleted, WebhookRotated, WebhookReplayed, WebhookResent, WebhookTested, WebhookDisabled,
	OperatorActed, Impersonated,
}

// Event is an action to record. The zero StoreID is no store, the zero Outcome
// is Success. Details never contain a secret.
type Event struct {
	Action  string
	Store   stoa.StoreID
	Outcome Outcome
	Details map[string]string
}

// Record writes an entry to the audit log in tx, the transaction of the action,
// so that both are committed or neither. An action that concerns the programs of owners is
// recorded as an event as well.
func Record(ctx context.Context, tx *masterdb.Tx, by Subject, e Event) error {
	if err := insert(ctx, tx, by, e, `true`); err != nil {
		return err
	}
	return publish(ctx, tx, by.Actor(), e)
}

// insert writes the entry if the SQL condition holds, in which $2 is the user, $3 the store,
// $7 the request and $8 the details.
func insert(ctx context.Context, tx *masterdb.Tx, by Subject, e Event, condition string) error {
	actor := by.Actor()
	details, err := encodeDetails(actor, e)
	if err != nil {
		return err
	}
	return tx.ExecLater(ctx, `
		INSERT INTO audit_events (id, user_id, store_id, action, outcome, address, request_id, details, created_at)
		SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9 WHERE `+condition,
		stoa.NewID[stoa.EventID](), orNull(actor.UserID), orNull(e.Store), e.Action, string(cmp.Or(e.Outcome, Success)),
		actor.Origin.Address, actor.Origin.RequestID, details, tx.Now)
}

// RecordOperator records that an operator of the platform accesses a store that
// is not theirs, or all stores (the zero id), once for each request and action.
// A request is identified by the platform's id, not by a client's. The entry is made if the
// SQL condition holds as well, in which $2 is the operator: a check of the right thus goes in
// the same round trip.
func RecordOperator(ctx context.Context, tx *masterdb.Tx, by Subject, store stoa.StoreID, action, condition string) error {
	e := Event{Action: OperatorActed, Store: store, Details: map[string]string{"action": action}}
	return insert(ctx, tx, by, e, condition+` AND NOT EXISTS (SELECT 1 FROM audit_events e
		WHERE e.action = 'operator.access' AND e.request_id = $7 AND e.request_id <> ''
			AND e.store_id IS NOT DISTINCT FROM $3 AND e.user_id = $2 AND e.details = $8)`)
}

// encodeDetails returns an entry's details as JSON, with those of the actor.
func encodeDetails(actor Actor, e Event) (string, error) {
	details := maps.Clone(e.Details)
	if details == nil {
		details = map[string]string{}
	}
	if !actor.KeyID.IsZero() {
		details["apiKey"] = actor.KeyID.String()
	}
	if !actor.Impersonator.IsZero() {
		details["impersonator"] = actor.Impersonator.String()
	}
	if actor.Origin.ClientRequestID != "" {
		details["clientRequestId"] = actor.Origin.ClientRequestID
	}
	if actor.Origin.Command != "" {
		details["command"] = actor.Origin.Command
	}
	text, err := json.Marshal(details)
	return string(text), err
}

// orNull returns nil for the zero id, which is stored as NULL.
func orNull[K any](id stoa.ID[K]) *stoa.ID[K] {
	if id.IsZero() {
		return nil
	}
	return &id
}
