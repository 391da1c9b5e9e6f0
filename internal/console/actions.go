package console

import (
	"strings"

	"github.com/stoahq/stoa/internal/audit"
)

// actionWords says in words what an entry of the audit log records. An action without
// words of its own is shown as its code.
func actionWords(e audit.Entry) string {
	words, ok := actions[e.Action]
	if !ok {
		words = strings.NewReplacer(".", ": ", "_", " ").Replace(e.Action)
	}
	switch e.Outcome {
	case audit.Denied:
		return words + " (refused)"
	case audit.Failed:
		return words + " (failed)"
	case audit.Success:
	}
	return words
}

var actions = map[string]string{
	audit.Registered:         "Account created",
	audit.SignedIn:           "Signed in",
	audit.SignedOut:          "Signed out",
	audit.TokenReused:        "Copied token used",
	audit.SessionRevoked:     "Session ended",
	audit.Reauthenticated:    "Password confirmed",
	audit.PasswordChanged:    "Password changed",
	audit.PasswordReset:      "Password reset",
	audit.EmailVerified:      "E-mail address confirmed",
	audit.FactorEnabled:      "Second factor set up",
	audit.FactorDisabled:     "Second factor removed",
	audit.RecoveryCodeUsed:   "Recovery code used",
	audit.PasskeyAdded:       "Passkey added",
	audit.PasskeyRenamed:     "Passkey renamed",
	audit.PasskeyRemoved:     "Passkey removed",
	audit.MemberInvited:      "Member invited",
	audit.InvitationRevoked:  "Invitation revoked",
	audit.MemberJoined:       "Member joined",
	audit.MemberRoleChanged:  "Role changed",
	audit.MemberRemoved:      "Member removed",
	audit.OwnershipMoved:     "Ownership transferred",
	audit.KeyCreated:         "API key created",
	audit.KeyRevoked:         "API key revoked",
	audit.StoreCreated:       "Store created",
	audit.StoreUpdated:       "Settings changed",
	audit.StoreSuspended:     "Store suspended",
	audit.StoreResumed:       "Store resumed",
	audit.StoreDeleting:      "Deletion scheduled",
	audit.StoreRestored:      "Store restored",
	audit.StoreDeleted:       "Store deleted",
	audit.HostnameClaimed:    "Domain added",
	audit.HostnameVerified:   "Domain checked",
	audit.HostnamePrimary:    "Main domain chosen",
	audit.HostnameRemoved:    "Domain removed",
	audit.HostnameLost:       "Domain lost: its DNS record is gone",
	audit.DatabaseConnected:  "Database connected",
	audit.ConnectRetried:     "Connection retried",
	audit.DatabaseTested:     "Database tested",
	audit.CredentialsRotated: "Database credentials changed",
	audit.CredentialsShown:   "Database credentials shown",
	audit.DatabasePassword:   "Database password reset",
	audit.SupabaseConnected:  "Supabase connected",
	audit.SupabaseLeft:       "Supabase disconnected",
	audit.CreditsGranted:     "Credits granted",
	audit.CreditsVerified:    "Ledger verified",
	audit.CreditSettings:     "Credit settings changed",
	audit.RechargeChanged:    "Auto-recharge changed",
	audit.RechargeStopped:    "Auto-recharge stopped by the platform",
	audit.CardRequested:      "Card requested",
	audit.CardSaved:          "Card saved",
	audit.PurchaseStarted:    "Purchase started",
	audit.OperatorActed:      "Access by an operator",
	audit.OperatorPromoted:   "Operator appointed",
	audit.OperatorDemoted:    "Operator dismissed",
	audit.JobRetried:         "Job retried",
	audit.JobCancelled:       "Job cancelled",
	audit.UserSuspended:      "Account suspended",
	audit.UserResumed:        "Account resumed",
	audit.QuotasSet:          "Quotas set",
	audit.BulkBegun:          "Action on many stores started",
	audit.Impersonated:       "Impersonation begun",
	audit.PriceSet:           "Price set",
	audit.KeysRotated:        "Keys rotated",
	audit.TenantsMigrated:    "Stores migrated",
	audit.RoleGranted:        "Database role granted",
	audit.MasterBackedUp:     "Platform backed up",
	audit.MasterRestored:     "Platform restored from a backup",
	audit.RetentionSet:       "Retention set",
	audit.BackupRequested:    "Backup asked for",
	audit.BackupDeleted:      "Backup deleted",
	audit.BackupDownloaded:   "Backup downloaded",
	audit.BackupUploaded:     "Backup uploaded",
	audit.BackupScheduled:    "Schedule of backups changed",
	audit.BackupRestore:      "Restore of a backup begun",
	audit.BackupRestored:     "Backup restored",
	audit.BackupCloned:       "Backup cloned",
	audit.WebhookCreated:     "Webhook endpoint added",
	audit.WebhookUpdated:     "Webhook endpoint changed",
	audit.WebhookDeleted:     "Webhook endpoint deleted",
	audit.WebhookRotated:     "Secret of a webhook endpoint changed",
	audit.WebhookReplayed:    "Events sent again",
	audit.WebhookResent:      "Event sent again",
	audit.WebhookTested:      "Webhook endpoint tested",
	audit.WebhookDisabled:    "Webhook endpoint disabled by the platform",
}
