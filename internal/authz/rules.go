package authz

import (
	"slices"
	"strings"
)

// Role is the role of a member in a store.
type Role string

// The roles, from most to least powerful.
const (
	Owner  Role = "owner"
	Admin  Role = "admin"
	Member Role = "member"
	Viewer Role = "viewer"
)

// Operator is the role in every store of a user with the platform's role admin.
// No member has it.
const Operator Role = "operator"

// Roles are the roles that a member can have.
var Roles = []Role{Owner, Admin, Member, Viewer}

// Action is an action on a store that a role allows.
type Action string

// The actions that are checked.
const (
	ReadStore         Action = "store:read"
	UpdateStore       Action = "store:update"
	ManageHostnames   Action = "hostnames:manage"
	ConnectDatabase   Action = "database:connect"
	TestDatabase      Action = "database:test"
	RotateCredentials Action = "database:rotate"
	ReadCredentials   Action = "database:credentials"
	ResetPassword     Action = "database:reset-password"
	MoveDatabase      Action = "database:move"
	ReadBackups       Action = "backups:read"
	MakeBackup        Action = "backups:make"
	ManageBackups     Action = "backups:manage"
	DownloadBackup    Action = "backups:download"
	RestoreBackup     Action = "backups:restore"
	SuspendStore      Action = "store:suspend"
	DeleteStore       Action = "store:delete"
	ReadCredits       Action = "credits:read"
	SpendCredits      Action = "credits:spend"
	PurchaseCredits   Action = "credits:purchase"
	ReadMembers       Action = "members:read"
	ManageMembers     Action = "members:manage"
	ManageOwners      Action = "owners:manage"
	ManageKeys        Action = "keys:manage"
	ReadAudit         Action = "audit:read"
	ReadEvents        Action = "events:read"
	ReadWebhooks      Action = "webhooks:read"
	ManageWebhooks    Action = "webhooks:manage"
)

// Scope is a permission of an API key.
type Scope string

// Rule says who may do one action.
type Rule struct {
	Action Action
	About  string
	Roles  []Role
	Scope  Scope // the scope that an API key needs; empty: no key may
	// Impersonated: an operator who acts as a member may do it too. Actions that
	// outlast the impersonation or cost credits are left to the member.
	Impersonated bool
	// RecentAuthentication: a browser's session needs a recent password or second
	// factor, because an open browser is no proof of who sits before it.
	RecentAuthentication bool
}

// rules is the table of who may do what.
var rules = []Rule{
	{Action: ReadStore, About: "See the store", Roles: []Role{Owner, Admin, Member, Viewer, Operator}, Scope: "store:read", Impersonated: true},
	{Action: UpdateStore, About: "Change the store's profile", Roles: []Role{Owner, Admin, Member, Operator}, Scope: "store:write", Impersonated: true},
	{Action: ManageHostnames, About: "Add, prove and remove hostnames", Roles: []Role{Owner, Admin, Operator}, Scope: "hostnames:write"},
	{Action: ConnectDatabase, About: "Connect the store's database", Roles: []Role{Owner, Admin, Operator}, Scope: "database:write"},
	// The platform connects to an address that the caller chooses.
	{Action: TestDatabase, About: "Try a database", Roles: []Role{Owner, Admin, Operator}, Scope: "database:write", Impersonated: true},
	{Action: RotateCredentials, About: "Change the database's credentials", Roles: []Role{Owner, Admin, Operator}, Scope: "database:write"},
	{Action: ReadCredentials, About: "See the credentials of a managed database", Roles: []Role{Owner}, RecentAuthentication: true},
	{Action: ResetPassword, About: "Give a managed database a new password", Roles: []Role{Owner}, RecentAuthentication: true},
	{Action: MoveDatabase, About: "Move a store to another database", Roles: []Role{Owner}, RecentAuthentication: true},
	{Action: ReadBackups, About: "See the store's backups", Roles: []Role{Owner, Admin, Operator}, Scope: "backups:read", Impersonated: true},
	{Action: MakeBackup, About: "Back up the store now, and check backups", Roles: []Role{Owner, Admin, Operator}, Scope: "backups:write"},
	{Action: ManageBackups, About: "Set how often the store is backed up; delete and upload backups", Roles: []Role{Owner, Operator}, RecentAuthentication: true},
	{Action: DownloadBackup, About: "Download and clone backups", Roles: []Role{Owner}, RecentAuthentication: true},
	{Action: RestoreBackup, About: "Restore a backup into the store", Roles: []Role{Owner, Operator}, RecentAuthentication: true},
	{Action: SuspendStore, About: "Suspend and resume the store", Roles: []Role{Owner, Admin, Operator}},
	{Action: DeleteStore, About: "Delete and restore the store", Roles: []Role{Owner, Operator}, RecentAuthentication: true},
	{Action: ReadCredits, About: "See credits and what they went to", Roles: []Role{Owner, Admin, Member, Viewer, Operator}, Scope: "credits:read", Impersonated: true},
	{Action: SpendCredits, About: "Spend and hold credits", Roles: []Role{Owner, Admin, Member}, Scope: "credits:spend"},
	{Action: PurchaseCredits, About: "Buy credits and set when to be told", Roles: []Role{Owner, Admin}, Scope: "credits:purchase"},
	{Action: ReadMembers, About: "See who belongs to the store", Roles: []Role{Owner, Admin, Member, Viewer, Operator}, Scope: "members:read", Impersonated: true},
	{Action: ManageMembers, About: "Invite, change and remove members", Roles: []Role{Owner, Admin, Operator}},
	{Action: ManageOwners, About: "Make and unmake owners", Roles: []Role{Owner, Operator}, RecentAuthentication: true},
	{Action: ManageKeys, About: "Make and revoke API keys", Roles: []Role{Owner, Admin}},
	{Action: ReadAudit, About: "Read the audit log", Roles: []Role{Owner, Admin, Operator}, Scope: "audit:read", Impersonated: true},
	{Action: ReadEvents, About: "Follow what happens to the store", Roles: []Role{Owner, Admin, Operator}, Scope: "events:read", Impersonated: true},
	{Action: ReadWebhooks, About: "See webhook endpoints and what was sent to them", Roles: []Role{Owner, Admin, Operator}, Scope: "webhooks:read", Impersonated: true},
	// The platform connects to an address that the caller chooses, and goes on to.
	{Action: ManageWebhooks, About: "Add, change and remove webhook endpoints; send again", Roles: []Role{Owner, Admin}, Scope: "webhooks:write"},
}

// Rules returns a copy of the table.
func Rules() []Rule { return slices.Clone(rules) }

func ruleOf(a Action) Rule {
	i := slices.IndexFunc(rules, func(r Rule) bool { return r.Action == a })
	if i < 0 {
		return Rule{}
	}
	return rules[i]
}

// Can reports whether a role may do an action.
func (r Role) Can(a Action) bool { return slices.Contains(ruleOf(a).Roles, r) }

// Scopes lists the scopes of API keys.
func Scopes() []Scope {
	var out []Scope
	for _, r := range rules {
		if r.Scope != "" && !slices.Contains(out, r.Scope) {
			out = append(out, r.Scope)
		}
	}
	return out
}

// Markdown returns the table as the documentation shows it.
func Markdown() string {
	roles := append(slices.Clone(Roles), Operator)
	var b strings.Builder
	b.WriteString("| action | owner | admin | member | viewer | operator | operator acting as a member | API key with |\n|---|---|---|---|---|---|---|---|\n")
	for _, r := range rules {
		b.WriteString("| " + r.About + " |")
		for _, role := range roles {
			mark := " |"
			if role.Can(r.Action) {
				mark = " ✓ |"
			}
			b.WriteString(mark)
		}
		b.WriteString(map[bool]string{true: " ✓ |", false: " |"}[r.Impersonated])
		scope := "–"
		if r.Scope != "" {
			scope = "`" + string(r.Scope) + "`"
		}
		b.WriteString(" " + scope + " |\n")
	}
	return b.String()
}
