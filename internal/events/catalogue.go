package events

import (
	"slices"
	"strings"
)

// Type is the type of an event.
type Type string

// The types of events. They are part of the public API.
const (
	StoreCreated           Type = "store.created"
	StoreUpdated           Type = "store.updated"
	StoreSuspended         Type = "store.suspended"
	StoreResumed           Type = "store.resumed"
	StoreDeletionScheduled Type = "store.deletion_scheduled"
	StoreRestored          Type = "store.restored"
	StoreDeleted           Type = "store.deleted"

	DatabaseReady      Type = "database.ready"
	DatabaseFailed     Type = "database.failed"
	CredentialsRotated Type = "database.credentials_rotated"
	PasswordReset      Type = "database.password_reset"
	MoveStarted        Type = "database.move_started"
	DatabaseMoved      Type = "database.moved"
	MoveEnded          Type = "database.move_ended"

	HostnameAdded       Type = "hostname.added"
	HostnameVerified    Type = "hostname.verified"
	HostnameMadePrimary Type = "hostname.made_primary"
	HostnameRemoved     Type = "hostname.removed"
	HostnameLost        Type = "hostname.lost"

	MemberInvited        Type = "member.invited"
	InvitationRevoked    Type = "member.invitation_revoked"
	MemberJoined         Type = "member.joined"
	MemberRoleChanged    Type = "member.role_changed"
	MemberRemoved        Type = "member.removed"
	OwnershipTransferred Type = "member.ownership_transferred"

	KeyCreated Type = "api_key.created"
	KeyRevoked Type = "api_key.revoked"

	BackupSucceeded Type = "backup.succeeded"
	BackupFailed    Type = "backup.failed"
	BackupDeleted   Type = "backup.deleted"
	BackupRestored  Type = "backup.restored"
	BackupCloned    Type = "backup.cloned"

	CreditsPurchased Type = "credits.purchased"
	CreditsGranted   Type = "credits.granted"
	CreditsSpent     Type = "credits.spent"
	CreditsRefunded  Type = "credits.refunded"
	CreditsDisputed  Type = "credits.disputed"
	CreditsAdjusted  Type = "credits.adjusted"
	CreditsExpired   Type = "credits.expired"
	CreditsLow       Type = "credits.low"
	RechargeStopped  Type = "credits.auto_recharge_stopped"

	PurchaseStarted  Type = "purchase.started"
	PurchasePaid     Type = "purchase.paid"
	PurchaseExpired  Type = "purchase.expired"
	PurchaseReversed Type = "purchase.reversed"

	UserRegistered Type = "user.registered"
	UserSuspended  Type = "user.suspended"
	UserResumed    Type = "user.resumed"
	UserDeleted    Type = "user.deleted"

	WebhookDisabled Type = "webhook.disabled"
	WebhookTest     Type = "webhook.test"
)

// Kind describes a type of event.
type Kind struct {
	Type    Type
	About   string   // when it happens
	Members []Member // of its data
}

// Member is a member of an event's data. All are texts.
type Member struct {
	Name, About string
	Example     string
}

// OfPlatform reports whether events of the type concern no store, so that only endpoints of
// the platform receive them.
func (k Kind) OfPlatform() bool { return strings.HasPrefix(string(k.Type), "user.") }

// These members occur in several types.
var (
	hostname   = Member{"hostname", "The hostname", "www.example.com"}
	move       = Member{"moveId", "The move", exampleID}
	backup     = Member{"backupId", "The backup", exampleID}
	invitation = Member{"invitationId", "The invitation", exampleID}
	purchase   = Member{"purchaseId", "The purchase", exampleID}
	run        = Member{"runId", "The run that connected the database", exampleID}
	problem    = Member{"message", "What went wrong, for people", "The server refused the password."}
	errorCode  = Member{"code", "What went wrong, a code of the API's errors", "database_auth_failed"}
	member     = Member{"memberId", "The user", exampleID}
	role       = Member{"role", "owner, admin, member or viewer", "admin"}
	user       = Member{"subjectId", "The user that it concerns", exampleID}
	key        = Member{"keyId", "The key", exampleID}
)

const exampleID = "019363a0-0000-7000-8000-000000000001"

// ledger are the members of events about credits. Amounts are decimal numbers of credits.
var ledger = []Member{
	{"transactionId", "The transaction", exampleID},
	{"sequence", "Its number in the store: 1, 2, 3, … without gaps", "17"},
	{"type", "The transaction's type", "spend"},
	{"amount", "By how many credits the balance changed", "-2.5"},
	{"balanceAfter", "The balance after it", "97.5"},
	{"serviceKey", "What was paid for; empty: no service", "ai.text"},
	{"description", "As it was given", "A product text"},
	{"reference", "What it belongs to, such as a purchase; empty: nothing", ""},
}

// sale are the members of events about purchases.
var sale = []Member{
	purchase,
	{"credits", "How many credits are bought", "100"},
	{"amount", "The price, a decimal number", "10.00"},
	{"currency", "The currency of the price, ISO 4217", "EUR"},
	{"automatic", "true: an automatic recharge", "false"},
}

// catalogue lists every type.
var catalogue = []Kind{
	{StoreCreated, "A store was created.", nil},
	{StoreUpdated, "The store's profile was changed.", []Member{{"fields", "The names of the changed fields, separated by commas", "name,email"}}},
	{StoreSuspended, "The store was suspended: it is closed to shoppers.", nil},
	{StoreResumed, "The store was resumed.", nil},
	{StoreDeletionScheduled, "The store was deleted. It can be restored until its grace period ends.", nil},
	{StoreRestored, "The deleted store was restored.", nil},
	{StoreDeleted, "The store and what the platform had of it are gone.", nil},
	{DatabaseReady, "The store's database is connected, and the store is open.", []Member{run}},
	{DatabaseFailed, "Connecting the store's database failed.", []Member{run, errorCode, problem}},
	{CredentialsRotated, "The credentials of the store's database were changed.", nil},
	{PasswordReset, "The managed database has a new password.", nil},
	{MoveStarted, "A move to another database began.", []Member{move}},
	{DatabaseMoved, "The store uses the other database from now on.", []Member{move}},
	{MoveEnded, "A move ended.", []Member{move, {"state", "succeeded, aborted, rolled_back or failed", "succeeded"}}},
	{HostnameAdded, "A hostname was added. It is not proven yet.", []Member{hostname}},
	{HostnameVerified, "A hostname was proven.", []Member{hostname}},
	{HostnameMadePrimary, "A hostname became the store's primary one.", []Member{hostname}},
	{HostnameRemoved, "A hostname was removed.", []Member{hostname}},
	{HostnameLost, "The DNS record that proved the hostname is gone.", []Member{hostname}},
	{MemberInvited, "Somebody was invited.", []Member{invitation, {"email", "The address that the invitation was sent to", "ada@example.com"}, role}},
	{InvitationRevoked, "An invitation was revoked.", []Member{invitation}},
	{MemberJoined, "The user userId joined.", []Member{role}},
	{MemberRoleChanged, "A member has another role.", []Member{member, {"from", "The role before", "member"}, {"to", "The role now", "admin"}}},
	{MemberRemoved, "A member was removed or left.", []Member{member, role}},
	{OwnershipTransferred, "The store has another owner.", []Member{{"to", "The user who owns it now", exampleID}}},
	{KeyCreated, "An API key was made.", []Member{key, {"name", "The key's name", "Warehouse"}, {"scopes", "What it may do, separated by spaces", "store:read"}}},
	{KeyRevoked, "An API key was revoked.", []Member{key}},
	{BackupSucceeded, "A backup was made.", []Member{backup, {"bytes", "Of the file", "4096"}}},
	{BackupFailed, "A backup could not be made.", []Member{backup, errorCode, problem}},
	{BackupDeleted, "A backup is deleted.", []Member{backup}},
	{BackupRestored, "A backup was restored into the store.", []Member{backup, {"restoreId", "The restore", exampleID}}},
	{BackupCloned, "A new store was made of a backup.", []Member{backup, {"into", "The new store", exampleID}}},
	{CreditsPurchased, "A purchase added credits.", ledger},
	{CreditsGranted, "Credits were given to the store.", ledger},
	{CreditsSpent, "Credits were spent, or captured from a hold.", ledger},
	{CreditsRefunded, "A refund changed the credits.", ledger},
	{CreditsDisputed, "A disputed payment changed the credits.", ledger},
	{CreditsAdjusted, "An operator adjusted the credits.", ledger},
	{CreditsExpired, "Credits expired.", ledger},
	{CreditsLow, "The available credits fell below the store's threshold.", []Member{{"threshold", "In credits", "10"}, {"available", "The credits after it", "9.5"}}},
	{RechargeStopped, "The platform stopped the automatic recharge.", []Member{{"reason", "Why", "card_declined"}}},
	{PurchaseStarted, "A purchase began. It is not paid yet.", sale},
	{PurchasePaid, "A purchase was paid, and its credits were added.", sale},
	{PurchaseExpired, "A purchase was not paid in time.", sale},
	{PurchaseReversed, "A payment was refunded or is disputed, in part or whole.", append(slices.Clone(sale), Member{"reversed", "How much of the price, a decimal number", "10.00"})},
	{UserRegistered, "The user userId registered.", nil},
	{UserSuspended, "An operator suspended a user.", []Member{user}},
	{UserResumed, "An operator resumed a user.", []Member{user}},
	{UserDeleted, "The user userId deleted their account.", nil},
	{WebhookDisabled, "The platform disabled an endpoint.", []Member{{"endpointId", "The endpoint", exampleID}, {"reason", "failing or gone", "failing"}}},
	{WebhookTest, "Somebody asked for a test of an endpoint, which alone receives it.", []Member{{"endpointId", "The endpoint", exampleID}}},
}

// Catalogue returns every type of event.
func Catalogue() []Kind { return slices.Clone(catalogue) }

// KindOf returns the description of a type. ok is false for a type that does not exist.
func KindOf(t Type) (k Kind, ok bool) {
	i := slices.IndexFunc(catalogue, func(k Kind) bool { return k.Type == t })
	if i < 0 {
		return Kind{}, false
	}
	return catalogue[i], true
}
