package audit

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/masterdb"
)

// public is the event that an action is for the programs of owners. Members names the details
// that they are told: the member of the event's data, then the detail.
type public struct {
	Type    events.Type
	Members map[string]string
}

// publics are the actions that are events too, when they succeed.
var publics = map[string]public{
	Registered:         {Type: events.UserRegistered},
	AccountDeleted:     {Type: events.UserDeleted},
	UserSuspended:      {events.UserSuspended, map[string]string{"subjectId": "user"}},
	UserResumed:        {events.UserResumed, map[string]string{"subjectId": "user"}},
	StoreCreated:       {Type: events.StoreCreated},
	StoreUpdated:       {events.StoreUpdated, map[string]string{"fields": "fields"}},
	StoreSuspended:     {Type: events.StoreSuspended},
	StoreResumed:       {Type: events.StoreResumed},
	StoreDeleting:      {Type: events.StoreDeletionScheduled},
	StoreRestored:      {Type: events.StoreRestored},
	StoreDeleted:       {Type: events.StoreDeleted},
	HostnameClaimed:    {events.HostnameAdded, map[string]string{"hostname": "hostname"}},
	HostnameVerified:   {events.HostnameVerified, map[string]string{"hostname": "hostname"}},
	HostnamePrimary:    {events.HostnameMadePrimary, map[string]string{"hostname": "hostname"}},
	HostnameRemoved:    {events.HostnameRemoved, map[string]string{"hostname": "hostname"}},
	HostnameLost:       {events.HostnameLost, map[string]string{"hostname": "hostname"}},
	MemberInvited:      {events.MemberInvited, map[string]string{"invitationId": "invitation", "email": "email", "role": "role"}},
	InvitationRevoked:  {events.InvitationRevoked, map[string]string{"invitationId": "invitation"}},
	MemberJoined:       {events.MemberJoined, map[string]string{"role": "role"}},
	MemberRoleChanged:  {events.MemberRoleChanged, map[string]string{"memberId": "user", "from": "from", "to": "to"}},
	MemberRemoved:      {events.MemberRemoved, map[string]string{"memberId": "user", "role": "role"}},
	OwnershipMoved:     {events.OwnershipTransferred, map[string]string{"to": "to"}},
	KeyCreated:         {events.KeyCreated, map[string]string{"keyId": "key", "name": "name", "scopes": "scopes"}},
	KeyRevoked:         {events.KeyRevoked, map[string]string{"keyId": "key"}},
	CredentialsRotated: {Type: events.CredentialsRotated},
	DatabasePassword:   {Type: events.PasswordReset},
	MoveStarted:        {events.MoveStarted, map[string]string{"moveId": "move"}},
	MoveSwapped:        {events.DatabaseMoved, map[string]string{"moveId": "move"}},
	MoveEnded:          {events.MoveEnded, map[string]string{"moveId": "move", "state": "state"}},
	BackupDeleted:      {events.BackupDeleted, map[string]string{"backupId": "backup"}},
	BackupRestored:     {events.BackupRestored, map[string]string{"backupId": "backup", "restoreId": "restore"}},
	BackupCloned:       {events.BackupCloned, map[string]string{"backupId": "backup", "into": "into"}},
	WebhookDisabled:    {events.WebhookDisabled, map[string]string{"endpointId": "endpoint", "reason": "reason"}},
	RechargeStopped:    {events.RechargeStopped, map[string]string{"reason": "reason"}},
	PurchaseStarted: {events.PurchaseStarted, map[string]string{
		"purchaseId": "purchase", "credits": "credits", "amount": "amount", "currency": "currency", "automatic": "automatic"}},
}

// publish records the event that the entry is for the programs of owners, if it is one.
func publish(ctx context.Context, tx *masterdb.Tx, actor Actor, e Event) error {
	p, ok := publics[e.Action]
	if !ok || e.Outcome != "" && e.Outcome != Success {
		return nil
	}
	data := map[string]string{}
	for member, detail := range p.Members {
		data[member] = e.Details[detail]
	}
	store := e.Store
	if kind, _ := events.KindOf(p.Type); kind.OfPlatform() {
		store = stoa.StoreID{}
	}
	return events.Record(ctx, tx, p.Type, store, actor.UserID, data)
}
