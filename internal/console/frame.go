package console

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/web"
)

// ContentSecurityPolicy is the policy of the console: scripts, styles and calls of this
// host only, nothing inline.
const ContentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' https: data:; " +
	"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// publicFrame is the frame of a page outside the sections.
func publicFrame(title string) ui.Frame { return ui.Frame{Title: title} }

// formFrame is the frame of a page that is one form.
func formFrame(title string) ui.Frame { return ui.Frame{Title: title, Narrow: true} }

// storeFrame is the frame of a page of a store. key names its place in the navigation.
func storeFrame(s stores.Store, key, title string) ui.Frame {
	base := "/stores/" + s.Slug
	return ui.Frame{
		Title: title, Store: &ui.StoreLink{Name: s.Name, Slug: s.Slug, Status: storeState(s)}, NavLabel: "Store",
		Nav: places(key, []ui.NavItem{
			{Key: "overview", Label: "Overview", URL: base, Icon: "home"},
			{Key: "database", Label: "Database", URL: base + "/database", Icon: "database"},
			{Key: "domains", Label: "Domains", URL: base + "/domains", Icon: "globe"},
			{Key: "people", Label: "People", URL: base + "/people", Icon: "people"},
			{Key: "keys", Label: "API keys", URL: base + "/keys", Icon: "key"},
			{Key: "credits", Label: "Credits", URL: base + "/credits", Icon: "coins"},
			{Key: "catalogue", Label: "Catalogue", Icon: "tag", Coming: true},
			{Key: "customers", Label: "Customers", Icon: "user", Coming: true},
			{Key: "orders", Label: "Orders", Icon: "cart", Coming: true},
			{Key: "backups", Label: "Backups", URL: base + "/backups", Icon: "archive"},
			{Key: "webhooks", Label: "Webhooks", URL: base + "/webhooks", Icon: "send"},
			{Key: "activity", Label: "Activity", URL: base + "/activity", Icon: "list"},
			{Key: "settings", Label: "Settings", URL: base + "/settings", Icon: "settings"},
		}),
	}
}

// accountFrame is the frame of a page of the caller's account.
func accountFrame(key, title string) ui.Frame {
	return ui.Frame{Title: title, NavLabel: "Your account", Nav: places(key, []ui.NavItem{
		{Key: "account", Label: "Account", URL: "/account", Icon: "user"},
		{Key: "password", Label: "Password", URL: "/account/password", Icon: "lock"},
		{Key: "passkeys", Label: "Passkeys", URL: "/account/passkeys", Icon: "key"},
		{Key: "second-factor", Label: "Second factor", URL: "/account/second-factor", Icon: "phone"},
		{Key: "sessions", Label: "Sessions", URL: "/account/sessions", Icon: "shield"},
		{Key: "export", Label: "Your data", URL: "/account/export", Icon: "download"},
		{Key: "delete", Label: "Delete account", URL: "/account/delete", Icon: "trash"},
	})}
}

// operatorFrame is the frame of a page of the platform's operators.
func operatorFrame(key, title string) ui.Frame {
	return ui.Frame{Title: title, NavLabel: "Operator", Wide: true, Nav: places(key, []ui.NavItem{
		{Key: "fleet", Label: "Fleet", URL: "/operator", Icon: "home"},
		{Key: "stores", Label: "Stores", URL: "/operator/stores", Icon: "box"},
		{Key: "servers", Label: "Servers", URL: "/operator/servers", Icon: "server"},
		{Key: "runs", Label: "Runs", URL: "/operator/runs", Icon: "play"},
		{Key: "migrations", Label: "Migrations", URL: "/operator/migrations", Icon: "layers"},
		{Key: "jobs", Label: "Jobs", URL: "/operator/jobs", Icon: "clock"},
		{Key: "users", Label: "Users", URL: "/operator/users", Icon: "people"},
		{Key: "credits", Label: "Credits", URL: "/operator/credits", Icon: "coins"},
		{Key: "prices", Label: "Prices", URL: "/operator/prices", Icon: "tag"},
		{Key: "payments", Label: "Payments", URL: "/operator/payments", Icon: "card"},
		{Key: "mail", Label: "Mail", URL: "/operator/mail", Icon: "mail"},
		{Key: "webhooks", Label: "Webhooks", URL: "/operator/webhooks", Icon: "send"},
		{Key: "audit", Label: "Audit log", URL: "/operator/audit", Icon: "list"},
		{Key: "system", Label: "System", URL: "/operator/system", Icon: "pulse"},
	})}
}

// places marks the current place of a navigation.
func places(key string, items []ui.NavItem) []ui.NavItem {
	for i := range items {
		items[i].Current = items[i].Key == key
	}
	return items
}

// storeState returns a store's state in the console's vocabulary.
func storeState(s stores.Store) ui.State {
	switch s.Status {
	case stores.PendingDatabase:
		if s.Database != nil && s.Database.LastError != "" {
			return ui.NeedsAttention
		}
		return ui.NoDatabase
	case stores.Provisioning:
		return ui.SettingUp
	case stores.Suspended:
		return ui.Suspended
	case stores.Deleting, stores.Deleted:
		return ui.Deleting
	case stores.Active:
	}
	if s.Database != nil && s.Database.Status == tenantdb.StatusFailed {
		return ui.NeedsAttention
	}
	return ui.Active
}

// render writes a page in its frame.
func (c *Console) render(w http.ResponseWriter, r *Request, status int, f ui.Frame, content templ.Component) error {
	f.Assets = frameAssets
	f.Sandbox = c.Sandbox && r.SignedIn()
	f.Message = takeMessage(w, r)
	if r.SignedIn() {
		f.User = userLink(r.User)
		if !r.Principal.Impersonator.IsZero() {
			f.Impersonation = &ui.Impersonation{Email: r.User.Email, Expires: r.Expires}
		}
	}
	page := templ.ComponentFunc(func(ctx context.Context, out io.Writer) error {
		return ui.Document(f).Render(templ.WithChildren(ctx, content), out)
	})
	policy := ContentSecurityPolicy
	if f.FormOrigin != "" {
		// Browsers apply form-action to the redirect that answers a form, too.
		policy = strings.Replace(policy, "form-action 'self'", "form-action 'self' "+f.FormOrigin, 1)
	}
	web.ServeWithPolicy(w, r.Request, status, page, policy)
	return nil
}

func userLink(u accounts.User) *ui.UserLink {
	return &ui.UserLink{Name: strings.TrimSpace(u.FirstName + " " + u.LastName), Email: u.Email, Operator: u.IsOperator()}
}

const (
	messageLifetime = time.Minute
	maxMessage      = 400 // characters
)

// redirect answers a form that was accepted: the browser goes on to path, which shows
// the message once. Going back and forth does not send the form again.
func redirect(w http.ResponseWriter, r *Request, path, message string) error {
	if message != "" {
		text := []rune(message)
		if len(text) > maxMessage {
			text = append(text[:maxMessage-1], '…')
		}
		value := base64.RawURLEncoding.EncodeToString([]byte(string(text)))
		http.SetCookie(w, newCookie(r.Secure, cookieName(r.Secure, messageName), value, "/", messageLifetime))
	}
	http.Redirect(w, r.Request, path, http.StatusSeeOther)
	return nil
}

// takeMessage returns the message of the last action and forgets it. Over https no other
// host can have set its cookie (cookieName), and the text is escaped.
func takeMessage(w http.ResponseWriter, r *Request) string {
	cookie, err := r.Request.Cookie(cookieName(r.Secure, messageName))
	if err != nil {
		return ""
	}
	http.SetCookie(w, newCookie(r.Secure, cookieName(r.Secure, messageName), "", "/", expired))
	text, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil || len(text) > 4*maxMessage {
		return ""
	}
	return strings.ToValidUTF8(string(text), "")
}
