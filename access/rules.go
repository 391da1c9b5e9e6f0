package access

import (
	"slices"
	"strings"
)

// Role is what a member is to a store.
type Role string

// The roles, from most to least powerful.
const (
	Owner  Role = "owner"
	Admin  Role = "admin"
	Member Role = "member"
	Viewer Role = "viewer"
)

// Operator is what a user with the platform's role admin is to every store.
// No member has it.
const Operator Role = "operator"

// Roles are those that a member can have.
var Roles = []Role{Owner, Admin, Member, Viewer}

// Action is something that can be done to a store.
type Action string

// The actions that are checked.
const (
	ReadStore         Action = "store:read"
	UpdateStore       Action = "store:update"
	ManageHostnames   Action = "hostnames:manage"
	ConnectDatabase   Action = "database:connect"
	TestDatabase      Action = "database:test"
	RotateCredentials Action = "database:rotate"
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
)

// Scope is what an API key may be given.
type Scope string

// Rule is a row of the table of who may do what.
type Rule struct {
	Action Action
	About  string
	Roles  []Role
	Scope  Scope // what an API key needs; empty: no key may, whosever it is
	// Impersonated: an operator who acts as a member may do it too. What would
	// outlive their visit, or cost credits, is the member's own to do.
	Impersonated bool
}

// rules is the one table of who may do what.
var rules = []Rule{
	{ReadStore, "See the store", []Role{Owner, Admin, Member, Viewer, Operator}, "store:read", true},
	{UpdateStore, "Change the store's profile", []Role{Owner, Admin, Member, Operator}, "store:write", true},
	{ManageHostnames, "Add, prove and remove hostnames", []Role{Owner, Admin, Operator}, "hostnames:write", false},
	{ConnectDatabase, "Connect the store's database", []Role{Owner, Admin, Operator}, "database:write", false},
	// It makes the platform connect to an address of the caller's choice.
	{TestDatabase, "Try a database", []Role{Owner, Admin, Operator}, "database:write", true},
	{RotateCredentials, "Change the database's credentials", []Role{Owner, Admin, Operator}, "database:write", false},
	{SuspendStore, "Suspend and resume the store", []Role{Owner, Admin, Operator}, "", false},
	{DeleteStore, "Delete and restore the store", []Role{Owner, Operator}, "", false},
	{ReadCredits, "See credits and what they went to", []Role{Owner, Admin, Member, Viewer, Operator}, "credits:read", true},
	{SpendCredits, "Spend and hold credits", []Role{Owner, Admin, Member}, "credits:spend", false},
	{PurchaseCredits, "Buy credits and set when to be told", []Role{Owner, Admin}, "credits:purchase", false},
	{ReadMembers, "See who belongs to the store", []Role{Owner, Admin, Member, Viewer, Operator}, "members:read", true},
	{ManageMembers, "Invite, change and remove members", []Role{Owner, Admin, Operator}, "", false},
	{ManageOwners, "Make and unmake owners", []Role{Owner, Operator}, "", false},
	{ManageKeys, "Make and revoke API keys", []Role{Owner, Admin}, "", false},
	{ReadAudit, "Read the audit log", []Role{Owner, Admin, Operator}, "audit:read", true},
}

// Rules returns the table, for who prints it.
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

// Scopes lists what API keys can be given, each once.
func Scopes() []Scope {
	var out []Scope
	for _, r := range rules {
		if r.Scope != "" && !slices.Contains(out, r.Scope) {
			out = append(out, r.Scope)
		}
	}
	return out
}

// Markdown is the table as the documentation shows it.
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
