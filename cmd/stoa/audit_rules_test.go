package main

import (
	"github.com/stoahq/stoa/access"
)

// auditRule is what an operation writes to the audit log when it is done: at
// least one of the actions, depending on the call, or none for a reason.
type auditRule struct {
	actions []string
	reason  string
}

func writes(actions ...string) auditRule { return auditRule{actions: actions} }
func writesNone(reason string) auditRule { return auditRule{reason: reason} }

// Why an operation writes nothing.
const (
	reads      = "it changes nothing; what an operator looks at is operator.access"
	ledger     = "the ledger is the record: append-only, with user, time and key"
	onlyMails  = "it sends a mail at most; what the mail leads to is written"
	mayConfirm = "nothing holds before it is confirmed, which is written"
)

// auditedOperations has a row for every operation of the OpenAPI document.
var auditedOperations = map[string]auditRule{
	"POST /api/auth/register":               writes(access.Registered, access.StoreCreated),
	"POST /api/auth/login":                  writes(access.SignedIn),
	"POST /api/auth/login/second-factor":    writes(access.SignedIn, access.RecoveryCodeUsed),
	"POST /api/auth/refresh":                writesNone("the session goes on; the second use of a refresh token is auth.token_reused"),
	"POST /api/auth/logout":                 writes(access.SignedOut),
	"POST /api/auth/forgot-password":        writesNone(onlyMails),
	"POST /api/auth/reset-password":         writes(access.PasswordReset),
	"POST /api/auth/verify-email":           writes(access.EmailVerified),
	"POST /api/auth/verify-email/resend":    writesNone(onlyMails),
	"POST /api/auth/change-password":        writes(access.PasswordChanged),
	"POST /api/auth/second-factor":          writesNone(mayConfirm),
	"POST /api/auth/second-factor/confirm":  writes(access.FactorEnabled),
	"POST /api/auth/second-factor/disable":  writes(access.FactorDisabled),
	"DELETE /api/auth/sessions":             writes(access.SessionRevoked),
	"DELETE /api/auth/sessions/{sessionId}": writes(access.SessionRevoked),
	"GET /api/auth/me":                      writesNone(reads),
	"GET /api/auth/second-factor":           writesNone(reads),
	"GET /api/auth/sessions":                writesNone(reads),
	"POST /api/invitations/accept":          writes(access.MemberJoined, access.EmailVerified),
	"POST /api/operator/impersonations":     writes(access.Impersonated, access.OperatorActed),
	"GET /api/operator/audit":               writes(access.OperatorActed),
	"GET /api/operator/stores":              writes(access.OperatorActed),
	"POST /api/webhooks/stripe":             writesNone("stripe_events keeps it as it came; what it does is in the ledger and in billing, or credits.card_saved"),

	"POST /api/stores":                                   writes(access.StoreCreated),
	"POST /api/stores/create":                            writes(access.StoreCreated),
	"GET /api/stores":                                    writesNone(reads),
	"GET /api/stores/{id}":                               writesNone(reads),
	"PATCH /api/stores/{id}":                             writes(access.StoreUpdated),
	"DELETE /api/stores/{id}":                            writes(access.StoreDeleting),
	"POST /api/stores/{id}/restore":                      writes(access.StoreRestored),
	"POST /api/stores/{id}/suspend":                      writes(access.StoreSuspended),
	"POST /api/stores/{id}/resume":                       writes(access.StoreResumed),
	"GET /api/stores/{id}/audit":                         writesNone(reads),
	"POST /api/stores/{id}/connect-database":             writes(access.DatabaseConnected),
	"GET /api/stores/{id}/provisioning":                  writesNone(reads),
	"GET /api/stores/{id}/provisioning/events":           writesNone(reads),
	"POST /api/stores/{id}/provisioning/retry":           writes(access.ConnectRetried),
	"POST /api/stores/{id}/database/test":                writes(access.DatabaseTested),
	"POST /api/stores/{id}/database/rotate-credentials":  writes(access.CredentialsRotated),
	"GET /api/stores/{id}/hostnames":                     writesNone(reads),
	"POST /api/stores/{id}/hostnames":                    writes(access.HostnameClaimed),
	"PATCH /api/stores/{id}/hostnames/{hostname}":        writes(access.HostnamePrimary),
	"DELETE /api/stores/{id}/hostnames/{hostname}":       writes(access.HostnameRemoved),
	"POST /api/stores/{id}/hostnames/{hostname}/verify":  writes(access.HostnameVerified),
	"GET /api/stores/{id}/api-keys":                      writesNone(reads),
	"POST /api/stores/{id}/api-keys":                     writes(access.KeyCreated),
	"DELETE /api/stores/{id}/api-keys/{keyId}":           writes(access.KeyRevoked),
	"GET /api/stores/{id}/members":                       writesNone(reads),
	"PATCH /api/stores/{id}/members/{userId}":            writes(access.MemberRoleChanged),
	"DELETE /api/stores/{id}/members/{userId}":           writes(access.MemberRemoved),
	"POST /api/stores/{id}/transfer-ownership":           writes(access.OwnershipMoved),
	"GET /api/stores/{id}/invitations":                   writesNone(reads),
	"POST /api/stores/{id}/invitations":                  writes(access.MemberInvited),
	"DELETE /api/stores/{id}/invitations/{invitationId}": writes(access.InvitationRevoked),

	"GET /api/supabase/authorize":                 writesNone("nothing holds before the consent has come back: supabase.connected"),
	"GET /api/stores/{id}/supabase/connection":    writesNone(reads),
	"DELETE /api/stores/{id}/supabase/connection": writes(access.SupabaseLeft),
	"GET /api/stores/{id}/supabase/organizations": writesNone(reads),
	"GET /api/stores/{id}/supabase/projects":      writesNone(reads),
	"POST /api/stores/{id}/supabase/projects":     writes(access.DatabaseConnected),
	"GET /api/stores/{id}/supabase/regions":       writesNone(reads),

	"GET /api/credits/balance":             writesNone(reads),
	"GET /api/credits/prices":              writesNone(reads),
	"GET /api/credits/transactions":        writesNone(reads),
	"POST /api/credits/spend":              writesNone(ledger),
	"GET /api/credits/holds":               writesNone(reads),
	"POST /api/credits/holds":              writesNone(ledger),
	"POST /api/credits/holds/{id}/capture": writesNone(ledger),
	"POST /api/credits/holds/{id}/release": writesNone(ledger),
	"GET /api/credits/settings":            writesNone(reads),
	"PUT /api/credits/settings":            writes(access.CreditSettings),
	"POST /api/credits/purchase":           writes(access.PurchaseStarted),
	"GET /api/credits/purchases":           writesNone(reads),
	"GET /api/credits/purchases/{id}":      writesNone(reads),
	"GET /api/credits/auto-recharge":       writesNone(reads),
	"PUT /api/credits/auto-recharge":       writes(access.RechargeChanged),
	"POST /api/credits/auto-recharge/card": writes(access.CardRequested),

	"GET /api/storefront/products": writesNone(reads),
	"GET /api/storefront/store":    writesNone(reads),
	"GET /healthz":                 writesNone(reads),
	"GET /readyz":                  writesNone(reads),
}

// auditedCommands has a row for every command of the command line.
var auditedCommands = map[string]auditRule{
	"serve":              writesNone("what it is asked for has rows; a new audit retention is audit.retention_set"),
	"migrate":            writes(access.RoleGranted, access.RetentionSet), // with their flags; the migrations are in goose_db_version
	"keys generate":      writesNone("it prints keys and stores none"),
	"keys list":          writesNone(reads),
	"keys rotate":        writes(access.KeysRotated),
	"doctor":             writesNone(reads),
	"stores list":        writesNone(reads),
	"stores show":        writesNone(reads),
	"stores hostnames":   writesNone(reads),
	"stores suspend":     writes(access.StoreSuspended),
	"stores resume":      writes(access.StoreResumed),
	"stores delete":      writes(access.StoreDeleting),
	"stores restore":     writes(access.StoreRestored),
	"credits grant":      writes(access.CreditsGranted),
	"credits verify":     writesNone(reads),
	"payments list":      writesNone(reads),
	"payments reconcile": writesNone("what it makes up for is in the ledger and in billing, as if its event had come"),
	"tenants status":     writesNone(reads),
	"tenants migrate":    writes(access.TenantsMigrated),
	"tenants check":      writesNone(reads),
	"prices list":        writesNone(reads),
	"prices set":         writes(access.PriceSet),
	"users list":         writesNone(reads),
	"users promote":      writes(access.OperatorPromoted),
	"users demote":       writes(access.OperatorDemoted),
	"users verify":       writes(access.EmailVerified),
	"users quota":        writes(access.QuotasSet),
	"demo":               writesNone("each thing that it makes has the entry of whoever makes one"),
	"version":            writesNone(reads),
}
