// Package stoa holds the error codes, typed ids and version that all other
// packages share. It imports no package of the project.
package stoa

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Code identifies a kind of failure. Codes are part of the public API: clients
// branch on them, so a code never changes its meaning.
type Code string

// These are the codes of the public API.
const (
	InvalidRequest             Code = "invalid_request"
	AccountSuspended           Code = "account_suspended"
	EmailTaken                 Code = "email_taken"
	EmailUnverified            Code = "email_unverified"
	InvalidCredentials         Code = "invalid_credentials" //nolint:gosec // a code, not a credential
	ReauthenticationRequired   Code = "reauthentication_required"
	SecondFactorRequired       Code = "second_factor_required"
	TokenInvalid               Code = "token_invalid"
	TokenExpired               Code = "token_expired"
	SessionRevoked             Code = "session_revoked"
	Forbidden                  Code = "forbidden"
	NotFound                   Code = "not_found"
	MethodNotAllowed           Code = "method_not_allowed"
	StoreNotFound              Code = "store_not_found"
	StorePendingDatabase       Code = "store_pending_database"
	StoreSuspended             Code = "store_suspended"
	AlreadyConnected           Code = "already_connected"
	ProvisioningInProgress     Code = "provisioning_in_progress"
	ProvisioningCrashed        Code = "provisioning_crashed"
	DatabaseUnreachable        Code = "database_unreachable"
	DatabaseAuthFailed         Code = "database_auth_failed"
	DatabaseTLSFailed          Code = "database_tls_failed"
	DatabaseHostForbidden      Code = "database_host_forbidden"
	DatabaseNotEmpty           Code = "database_not_empty"
	DatabaseVersionUnsupported Code = "database_version_unsupported"
	DatabasePermissionDenied   Code = "database_permission_denied"
	DatabaseCredentialsLost    Code = "database_credentials_lost"
	DatabaseExposed            Code = "database_exposed"
	DatabaseNoProgress         Code = "database_no_progress"
	DatabaseContentInvalid     Code = "database_content_invalid"
	DatabaseSettingRefused     Code = "database_setting_refused"
	TenantError                Code = "tenant_error"
	TenantUnavailable          Code = "tenant_unavailable"
	HostnameTaken              Code = "hostname_taken"
	HostnameInvalid            Code = "hostname_invalid"
	InsufficientCredits        Code = "insufficient_credits"
	IdempotencyConflict        Code = "idempotency_conflict"
	IdempotencyInProgress      Code = "idempotency_in_progress"
	EditConflict               Code = "edit_conflict"
	WebhookNotEnabled          Code = "webhook_not_enabled"
	WebhookReplaying           Code = "webhook_replaying"
	HoldNotFound               Code = "hold_not_found"
	HoldNotOpen                Code = "hold_not_open"
	PaymentsUnavailable        Code = "payments_unavailable"
	PaymentRefused             Code = "payment_refused"
	SupabaseNotConfigured      Code = "supabase_not_configured"
	SupabaseNotConnected       Code = "supabase_not_connected"
	SupabaseReconnect          Code = "supabase_reconnect"
	SupabaseUnavailable        Code = "supabase_unavailable"
	SupabaseRefused            Code = "supabase_refused"
	SupabaseProjectPaused      Code = "supabase_project_paused"
	SupabaseProjectStarting    Code = "supabase_project_starting"
	SupabaseProjectRemoved     Code = "supabase_project_removed"
	SupabaseProjectFailed      Code = "supabase_project_failed"
	SupabaseProjectUnknown     Code = "supabase_project_unknown"
	ArchiveDamaged             Code = "archive_damaged"
	ArchiveKeyUnknown          Code = "archive_key_unknown"
	ArchiveTooNew              Code = "archive_too_new"
	ArchiveOfOtherStore        Code = "archive_of_other_store"
	ArchiveRefused             Code = "archive_refused"
	ArchiveStorageFailed       Code = "archive_storage_failed"
	MigrationFailed            Code = "migration_failed"
	MoveRefused                Code = "move_refused"
	MoveInProgress             Code = "move_in_progress"
	BackupInUse                Code = "backup_in_use"
	RestoreInProgress          Code = "restore_in_progress"
	QuotaExceeded              Code = "quota_exceeded"
	RateLimited                Code = "rate_limited"
	PlatformUnavailable        Code = "platform_unavailable"
	PayloadTooLarge            Code = "payload_too_large"
	VersionUnknown             Code = "api_version_unknown"
	URITooLong                 Code = "uri_too_long"
	Internal                   Code = "internal"
)

// MaxMessage is the maximum length of a recorded message, in bytes.
const MaxMessage = 2000

// Storable returns the message in a form that every master database accepts. A message
// may quote the table names of an untrusted server, of any length and with any bytes. A
// failure that cannot be recorded would prevent its run from ending.
func Storable(message string) string {
	const rest = "…"
	if len(message) > MaxMessage {
		message = message[:MaxMessage-len(rest)] + rest
	}
	return strings.ReplaceAll(strings.ToValidUTF8(message, "\uFFFD"), "\x00", "\uFFFD")
}

// FieldError is a fault of one field of a request. Field is its JSON path, such as
// "email" or "tls.mode".
type FieldError struct {
	Field   string
	Message string
}

// Error is a failure that may be shown to the caller. Message is written for a
// person and says what to do next; it never contains a secret. Cause, when set, is
// for the log only.
type Error struct {
	Code       Code
	Message    string
	Fields     []FieldError
	RetryAfter time.Duration
	Quota      *Quota // the quota that was exceeded; nil for other errors
	Cause      error
}

// Quota is a limit on the number of something, and the number in use.
type Quota struct {
	Name  string
	Limit int
	Used  int
}

// ErrorCode returns the code as text, for packages below this one's types.
func (e *Error) ErrorCode() string { return string(e.Code) }

func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.Cause)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

func (e *Error) Unwrap() error { return e.Cause }

// Errorf returns an *Error whose message is safe to show.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithCause records the underlying fault for the log and returns e.
func (e *Error) WithCause(cause error) *Error {
	e.Cause = cause
	return e
}

// CodeOf returns the code of the outermost *Error in err's chain, Internal
// for any other error, and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// Invalid collects the faults of fields, so that a caller sees all of them at once.
type Invalid []FieldError

// Add adds a fault of one field.
func (v *Invalid) Add(field, format string, args ...any) {
	*v = append(*v, FieldError{Field: field, Message: fmt.Sprintf(format, args...)})
}

// Err returns an InvalidRequest error that lists every fault, or nil if there is
// none.
func (v Invalid) Err() error {
	switch len(v) {
	case 0:
		return nil
	case 1:
		return &Error{Code: InvalidRequest, Message: v[0].Field + ": " + v[0].Message, Fields: v}
	default:
		return &Error{Code: InvalidRequest, Message: fmt.Sprintf("%d fields need attention", len(v)), Fields: v}
	}
}
