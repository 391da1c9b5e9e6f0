package app_test

import (
	"github.com/stoahq/stoa/internal/audit"
)

// auditRule states what an operation writes to the audit log when it succeeds: at least
// one of the actions, depending on the call, or none for a reason.
type auditRule struct {
	actions []string
	reason  string
}

func writes(actions ...string) auditRule { return auditRule{actions: actions} }
func writesNone(reason string) auditRule { return auditRule{reason: reason} }

// The reasons why an operation writes nothing.
const (
	reads      = "it changes nothing; what an operator looks at is operator.access"
	ledger     = "the ledger is the record: append-only, with user, time and key"
	onlyMails  = "it sends a mail at most; what the mail leads to is written"
	mayConfirm = "nothing holds before it is confirmed, which is written"
)

// auditedOperations has a row for every operation of the OpenAPI document.
var auditedOperations = map[string]auditRule{
	"POST /api/auth/register":                     writes(audit.Registered, audit.StoreCreated),
	"POST /api/auth/login":                        writes(audit.SignedIn),
	"POST /api/auth/login/second-factor":          writes(audit.SignedIn, audit.RecoveryCodeUsed),
	"POST /api/auth/refresh":                      writesNone("the session goes on; the second use of a refresh token is auth.token_reused"),
	"POST /api/auth/logout":                       writes(audit.SignedOut),
	"POST /api/auth/forgot-password":              writesNone(onlyMails),
	"POST /api/auth/reset-password":               writes(audit.PasswordReset),
	"POST /api/auth/verify-email":                 writes(audit.EmailVerified),
	"POST /api/auth/verify-email/resend":          writesNone(onlyMails),
	"PATCH /api/auth/me":                          writes(audit.NameChanged),
	"DELETE /api/auth/me":                         writes(audit.AccountDeleted),
	"GET /api/auth/email-change":                  writesNone(reads),
	"POST /api/auth/email-change":                 writes(audit.EmailChangeAsked),
	"DELETE /api/auth/email-change":               writes(audit.EmailChangeDropped),
	"POST /api/auth/email-change/confirm":         writes(audit.EmailConfirmed, audit.EmailChanged),
	"GET /api/auth/export":                        writes(audit.DataExported),
	"POST /api/auth/change-password":              writes(audit.PasswordChanged),
	"POST /api/auth/second-factor":                writesNone(mayConfirm),
	"POST /api/auth/second-factor/confirm":        writes(audit.FactorEnabled),
	"POST /api/auth/second-factor/disable":        writes(audit.FactorDisabled),
	"POST /api/auth/passkeys/registration/begin":  writesNone(mayConfirm),
	"POST /api/auth/passkeys/registration/finish": writes(audit.PasskeyAdded),
	"GET /api/auth/passkeys":                      writesNone(reads),
	"PATCH /api/auth/passkeys/{passkeyId}":        writes(audit.PasskeyRenamed),
	"DELETE /api/auth/passkeys/{passkeyId}":       writes(audit.PasskeyRemoved),
	"POST /api/auth/passkeys/login/begin":         writesNone(mayConfirm),
	"POST /api/auth/passkeys/login/finish":        writes(audit.SignedIn),
	"DELETE /api/auth/sessions":                   writes(audit.SessionRevoked),
	"DELETE /api/auth/sessions/{sessionId}":       writes(audit.SessionRevoked),
	"GET /api/auth/me":                            writesNone(reads),
	"GET /api/auth/second-factor":                 writesNone(reads),
	"GET /api/auth/sessions":                      writesNone(reads),
	"POST /api/invitations/accept":                writes(audit.MemberJoined, audit.EmailVerified),
	"POST /api/operator/impersonations":           writes(audit.Impersonated, audit.OperatorActed),
	"GET /api/operator/audit":                     writes(audit.OperatorActed),
	"GET /api/operator/stores":                    writes(audit.OperatorActed),
	"POST /api/webhooks/stripe":                   writesNone("stripe_events keeps it as it came; what it does is in the ledger and in billing, or credits.card_saved"),

	"POST /api/stores":                                   writes(audit.StoreCreated),
	"POST /api/stores/create":                            writes(audit.StoreCreated),
	"GET /api/stores":                                    writesNone(reads),
	"GET /api/stores/{id}":                               writesNone(reads),
	"PATCH /api/stores/{id}":                             writes(audit.StoreUpdated),
	"DELETE /api/stores/{id}":                            writes(audit.StoreDeleting),
	"POST /api/stores/{id}/restore":                      writes(audit.StoreRestored),
	"POST /api/stores/{id}/suspend":                      writes(audit.StoreSuspended),
	"POST /api/stores/{id}/resume":                       writes(audit.StoreResumed),
	"GET /api/stores/{id}/audit":                         writesNone(reads),
	"POST /api/stores/{id}/connect-database":             writes(audit.DatabaseConnected),
	"GET /api/stores/{id}/provisioning":                  writesNone(reads),
	"GET /api/stores/{id}/provisioning/events":           writesNone(reads),
	"POST /api/stores/{id}/provisioning/retry":           writes(audit.ConnectRetried),
	"POST /api/stores/{id}/database/test":                writes(audit.DatabaseTested),
	"POST /api/stores/{id}/database/rotate-credentials":  writes(audit.CredentialsRotated),
	"GET /api/stores/{id}/database/credentials":          writes(audit.CredentialsShown),
	"POST /api/stores/{id}/database/reset-password":      writes(audit.DatabasePassword),
	"GET /api/stores/{id}/backups":                       writesNone(reads),
	"POST /api/stores/{id}/backups":                      writes(audit.BackupRequested),
	"GET /api/stores/{id}/backups/{backupId}":            writesNone(reads),
	"DELETE /api/stores/{id}/backups/{backupId}":         writes(audit.BackupDeleted),
	"POST /api/stores/{id}/backups/{backupId}/check":     writesNone("it reads the archive and records the result with it"),
	"POST /api/stores/{id}/backups/{backupId}/restore":   writes(audit.BackupRestore),
	"POST /api/stores/{id}/backups/{backupId}/clone":     writes(audit.StoreCreated, audit.DatabaseConnected, audit.BackupRestore, audit.BackupCloned),
	"POST /api/stores/{id}/backups/{backupId}/download":  writes(audit.BackupDownloaded),
	"POST /api/stores/{id}/backups/upload":               writes(audit.BackupUploaded),
	"GET /api/stores/{id}/backups/restore":               writesNone(reads),
	"GET /api/stores/{id}/backup-schedule":               writesNone(reads),
	"PUT /api/stores/{id}/backup-schedule":               writes(audit.BackupScheduled),
	"DELETE /api/stores/{id}/backup-schedule":            writes(audit.BackupScheduled),
	"GET /api/stores/{id}/hostnames":                     writesNone(reads),
	"POST /api/stores/{id}/hostnames":                    writes(audit.HostnameClaimed),
	"PATCH /api/stores/{id}/hostnames/{hostname}":        writes(audit.HostnamePrimary),
	"DELETE /api/stores/{id}/hostnames/{hostname}":       writes(audit.HostnameRemoved),
	"POST /api/stores/{id}/hostnames/{hostname}/verify":  writes(audit.HostnameVerified),
	"GET /api/stores/{id}/api-keys":                      writesNone(reads),
	"POST /api/stores/{id}/api-keys":                     writes(audit.KeyCreated),
	"DELETE /api/stores/{id}/api-keys/{keyId}":           writes(audit.KeyRevoked),
	"GET /api/stores/{id}/members":                       writesNone(reads),
	"PATCH /api/stores/{id}/members/{userId}":            writes(audit.MemberRoleChanged),
	"DELETE /api/stores/{id}/members/{userId}":           writes(audit.MemberRemoved),
	"POST /api/stores/{id}/transfer-ownership":           writes(audit.OwnershipMoved),
	"GET /api/stores/{id}/invitations":                   writesNone(reads),
	"POST /api/stores/{id}/invitations":                  writes(audit.MemberInvited),
	"DELETE /api/stores/{id}/invitations/{invitationId}": writes(audit.InvitationRevoked),

	"GET /api/supabase/authorize":                 writesNone("nothing holds before the consent has come back: supabase.connected"),
	"GET /api/stores/{id}/supabase/connection":    writesNone(reads),
	"DELETE /api/stores/{id}/supabase/connection": writes(audit.SupabaseLeft),
	"GET /api/stores/{id}/supabase/organizations": writesNone(reads),
	"GET /api/stores/{id}/supabase/projects":      writesNone(reads),
	"POST /api/stores/{id}/supabase/projects":     writes(audit.DatabaseConnected),
	"GET /api/stores/{id}/supabase/regions":       writesNone(reads),

	"GET /api/credits/balance":                writesNone(reads),
	"GET /api/credits/prices":                 writesNone(reads),
	"GET /api/credits/transactions":           writesNone(reads),
	"POST /api/credits/spend":                 writesNone(ledger),
	"GET /api/credits/holds":                  writesNone(reads),
	"POST /api/credits/holds":                 writesNone(ledger),
	"POST /api/credits/holds/{id}/capture":    writesNone(ledger),
	"POST /api/credits/holds/{id}/release":    writesNone(ledger),
	"GET /api/credits/settings":               writesNone(reads),
	"GET /api/stores/{id}/credits/statistics": writesNone(reads),
	"PUT /api/credits/settings":               writes(audit.CreditSettings),
	"POST /api/credits/purchase":              writes(audit.PurchaseStarted),
	"GET /api/credits/purchases":              writesNone(reads),
	"GET /api/credits/purchases/{id}":         writesNone(reads),
	"GET /api/credits/auto-recharge":          writesNone(reads),
	"PUT /api/credits/auto-recharge":          writes(audit.RechargeChanged),
	"POST /api/credits/auto-recharge/card":    writes(audit.CardRequested),

	"GET /api/storefront/products": writesNone(reads),
	"GET /api/storefront/store":    writesNone(reads),
	"GET /healthz":                 writesNone(reads),
	"GET /readyz":                  writesNone(reads),
}

// auditedCommands has a row for every command of the command line.
var auditedCommands = map[string]auditRule{
	"serve":                 writesNone("what it is asked for has rows; a new audit retention is audit.retention_set"),
	"migrate":               writes(audit.RoleGranted, audit.RetentionSet), // with their flags; goose_db_version records the migrations
	"backup":                writes(audit.MasterBackedUp, audit.BackupRequested),
	"restore":               writes(audit.BackupRestore), // platform.restored is in the master database that it creates: see TestMasterRestoreSurvivesKills
	"backups list":          writesNone(reads),
	"backups verify":        writesNone("it reads the archives and records the result with them"),
	"backups download":      writes(audit.BackupDownloaded),
	"backups upload":        writes(audit.BackupUploaded),
	"backups discover":      writes(audit.BackupUploaded),
	"backups delete":        writes(audit.BackupDeleted),
	"keys generate":         writesNone("it prints keys and stores none"),
	"keys list":             writesNone(reads),
	"keys rotate":           writes(audit.KeysRotated),
	"doctor":                writesNone(reads),
	"stores list":           writesNone(reads),
	"stores show":           writesNone(reads),
	"stores hostnames":      writesNone(reads),
	"stores suspend":        writes(audit.StoreSuspended),
	"stores resume":         writes(audit.StoreResumed),
	"stores delete":         writes(audit.StoreDeleting),
	"stores restore":        writes(audit.StoreRestored),
	"stores dsn":            writes(audit.CredentialsShown),
	"stores reset-password": writes(audit.DatabasePassword),
	"stores import":         writes(audit.Registered, audit.StoreCreated, audit.DatabaseConnected),
	"credits grant":         writes(audit.CreditsGranted),
	"credits verify":        writesNone(reads),
	"payments list":         writesNone(reads),
	"payments reconcile":    writesNone("what it makes up for is in the ledger and in billing, as if its event had come"),
	"tenants status":        writesNone(reads),
	"tenants migrate":       writes(audit.TenantsMigrated),
	"tenants check":         writesNone(reads),
	"prices list":           writesNone(reads),
	"prices set":            writes(audit.PriceSet),
	"users list":            writesNone(reads),
	"users promote":         writes(audit.OperatorPromoted),
	"users demote":          writes(audit.OperatorDemoted),
	"users verify":          writes(audit.EmailVerified),
	"users quota":           writes(audit.QuotasSet),
	"demo":                  writesNone("each thing that it makes has the entry of whoever makes one"),
	"version":               writesNone(reads),
}
