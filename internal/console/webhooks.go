package console

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/webhooks"
)

func (c *Console) webhookRoutes() []Route {
	return bothWebhookOwners(func(base string, read, manage Scope) []Route {
		return []Route{
			{Pattern: "GET " + base, RouteOptions: view(read), Handle: c.webhookList},
			{Pattern: "POST " + base, RouteOptions: form(manage), Handle: c.createWebhook},
		}
	})
}

const operatorWebhooks = "/operator/webhooks"

// bothWebhookOwners returns the routes of a store's endpoints and those of the platform's.
func bothWebhookOwners(routes func(base string, read, manage Scope) []Route) []Route {
	return slices.Concat(
		routes("/stores/{slug}/webhooks", scopeOf(authz.ReadWebhooks), scopeOf(authz.ManageWebhooks)),
		routes(operatorWebhooks, Operator, Operator))
}

// webhookOwner is whose endpoints a page shows: those of a store or of the platform.
type webhookOwner struct {
	Store  stores.Store // zero: the platform
	Base   string       // the address of the list
	Manage bool         // the caller may change them
}

// webhookOwner returns the owner that the path names, for a page of an action that the
// caller must be allowed. The domain checks operators.
func (c *Console) webhookOwner(r *Request, a authz.Action) (webhookOwner, error) {
	if r.PathValue("slug") == "" {
		return webhookOwner{Base: operatorWebhooks, Manage: true}, nil
	}
	store, err := c.storeFor(r, a)
	return webhookOwner{Store: store, Base: "/stores/" + store.Slug + "/webhooks", Manage: err == nil && may(r, store, authz.ManageWebhooks)}, err
}

func (o webhookOwner) isPlatform() bool { return o.Store.ID.IsZero() }

func (o webhookOwner) frame(title string) ui.Frame {
	if o.isPlatform() {
		return operatorFrame("webhooks", title)
	}
	return storeFrame(o.Store, "webhooks", title)
}

// path returns the address of an endpoint's page.
func (o webhookOwner) path(id stoa.WebhookID) string { return o.Base + "/" + id.String() }

// webhooksView fills the list of endpoints.
type webhooksView struct {
	webhookOwner
	Form      ui.Form
	FormKey   string // the id of the endpoint that the form makes, so that it makes one when it is sent twice
	Endpoints []webhookRow
	Groups    []typeGroup
}

// webhookRow is one endpoint.
type webhookRow struct {
	webhooks.Endpoint
	Address string // without a query, which may hold a secret
	State   ui.State
	Remedy  string // what the state means, and what to do; "": nothing
}

func newWebhookRow(e webhooks.Endpoint) webhookRow {
	row := webhookRow{Endpoint: e, Address: e.URL}
	if u, err := url.Parse(e.URL); err == nil {
		row.Address = u.Host + u.EscapedPath()
		if u.RawQuery != "" {
			row.Address += "?…"
		}
	}
	switch {
	case e.State == webhooks.Paused:
		row.State = ui.State{Word: "Paused", Kind: ui.Warning, Icon: "pause"}
		row.Remedy = "Nothing is sent. What happens meanwhile waits, for 30 days, until you enable it."
	case e.State == webhooks.Disabled && e.DisabledReason == webhooks.Gone:
		row.State = ui.State{Word: "Disabled", Kind: ui.Danger, Icon: "alert"}
		row.Remedy = "It answered that it is gone (410). Delete it, or enable it when it is back."
	case e.State == webhooks.Disabled:
		row.State = ui.State{Word: "Disabled", Kind: ui.Danger, Icon: "alert"}
		row.Remedy = "It has accepted nothing for three days. See what it answered, correct it, then enable it."
	case e.FailingSince != nil:
		row.State = ui.State{Word: "Failing", Kind: ui.Warning, Icon: "alert"}
		row.Remedy = "What it does not accept is sent again. After three days without a success it is disabled. See what it answers."
	default:
		row.State = ui.Active
	}
	return row
}

// host is the name that is typed to delete the endpoint.
func (r webhookRow) host() string {
	host, _, _ := strings.Cut(r.Address, "/")
	return host
}

// waitingWords returns how many events wait: the domain counts those of all types.
func (r webhookRow) waitingWords() string {
	if r.Waiting > 0 && r.TypeList != "" {
		return "up to " + ui.Thousands(r.Waiting)
	}
	return ui.Thousands(r.Waiting)
}

const shownTypes = 3 // in the list

// typeWords names the types of events that an endpoint receives.
func (r webhookRow) typeWords() string {
	switch types := r.Types(); {
	case len(types) == 0:
		return "all"
	case len(types) > shownTypes:
		return fmt.Sprintf("%s and %d more", strings.Join(types[:shownTypes], ", "), len(types)-shownTypes)
	default:
		return strings.Join(types, ", ")
	}
}

// typeGroup is the types of events about one thing.
type typeGroup struct {
	Title string
	Kinds []events.Kind
}

var typeGroupTitles = map[string]string{
	"store": "The store", "database": "Database", "hostname": "Domains", "member": "People", "api_key": "API keys", "backup": "Backups",
	"credits": "Credits", "purchase": "Purchases", "user": "Users", "webhook": "Webhooks",
}

// typeGroups lists the types that an endpoint can choose. A test is sent to the endpoint that
// it is for, whatever its types; chosen types are listed all the same.
func typeGroups(platform bool, chosen []string) (groups []typeGroup) {
	at := map[string]int{}
	for _, k := range events.Catalogue() {
		useless := k.Type == events.WebhookTest || k.OfPlatform() && !platform
		if useless && !slices.Contains(chosen, string(k.Type)) {
			continue
		}
		thing, _, _ := strings.Cut(string(k.Type), ".")
		i, known := at[thing]
		if !known {
			i, at[thing] = len(groups), len(groups)
			title := typeGroupTitles[thing]
			if title == "" {
				title = thing
			}
			groups = append(groups, typeGroup{Title: title})
		}
		groups[i].Kinds = append(groups[i].Kinds, k)
	}
	return groups
}

func (c *Console) webhookList(w http.ResponseWriter, r *Request) error {
	o, err := c.webhookOwner(r, authz.ReadWebhooks)
	if err != nil {
		return err
	}
	return c.showWebhooks(w, r, webhooksView{webhookOwner: o, FormKey: stoa.NewID[stoa.WebhookID]().String()})
}

func (c *Console) showWebhooks(w http.ResponseWriter, r *Request, v webhooksView) error {
	list, err := c.Webhooks.List(r.Context(), r.Principal, v.Store.ID)
	if err != nil {
		return err
	}
	for _, e := range list {
		v.Endpoints = append(v.Endpoints, newWebhookRow(e))
	}
	v.Groups = typeGroups(v.isPlatform(), nil)
	return c.render(w, r, v.Form.Status(), v.frame("Webhooks"), webhooksPage(v))
}

// webhookChange reads the form with an endpoint's settings. chosen is false when it asks for
// a choice of types and has none, which would mean all.
func webhookChange(r *Request) (change webhooks.Change, chosen bool) {
	types := []string{}
	if r.PostForm.Get("which") == "chosen" {
		types = r.PostForm["types"]
		chosen = len(types) > 0
	} else {
		chosen = true
	}
	address, description := r.PostForm.Get("url"), r.PostForm.Get("description")
	return webhooks.Change{URL: &address, Description: &description, Types: &types}, chosen
}

// noTypes is the form that asks for a choice of types and has none.
func noTypes(r *Request) ui.Form {
	return ui.Form{Values: typed(r.PostForm), Faults: map[string]string{"types": "Choose at least one, or all."}, Code: http.StatusUnprocessableEntity}
}

// createWebhook adds an endpoint and shows its secret in this answer alone.
func (c *Console) createWebhook(w http.ResponseWriter, r *Request) error {
	o, err := c.webhookOwner(r, authz.ManageWebhooks)
	if err != nil {
		return err
	}
	change, chosen := webhookChange(r)
	v := webhooksView{webhookOwner: o, FormKey: r.PostForm.Get("key")}
	if change.ID, err = stoa.ParseID[stoa.WebhookID](v.FormKey); err != nil {
		change.ID = stoa.NewID[stoa.WebhookID]()
		v.FormKey = change.ID.String()
	}
	if !chosen {
		v.Form = noTypes(r)
		return c.showWebhooks(w, r, v)
	}
	e, secret, err := c.Webhooks.Create(r.Context(), r.Principal, o.Store.ID, change)
	if err != nil {
		if v.Form, err = refused(r, err); err != nil {
			return err
		}
		return c.showWebhooks(w, r, v)
	}
	return c.showNewSecret(w, r, o, e, secret, "The endpoint is added. It receives what happens from now on.")
}

// showNewSecret shows a secret that cannot be read again. No address, cookie or log holds it.
func (c *Console) showNewSecret(w http.ResponseWriter, r *Request, o webhookOwner, e webhooks.Endpoint, secret keyring.Secret, done string) error {
	w.Header().Set("Cache-Control", "no-store")
	return c.render(w, r, http.StatusOK, o.frame("New secret"), webhookSecretPage(o, newWebhookRow(e), secret, done))
}

// typesSummary is the heading of the choice of types.
func typesSummary(e webhooks.Endpoint) string {
	if n := len(e.Types()); n > 0 {
		return fmt.Sprintf("Types of events (%d chosen)", n)
	}
	return "Types of events"
}

// eventWords says when events of a type happen. The catalogue names a member of the events.
func eventWords(k events.Kind) string {
	return strings.Replace(k.About, "The user userId ", "A user ", 1)
}

// chosenType reports whether the endpoint has chosen the type.
func chosenType(e webhooks.Endpoint, t events.Type) bool {
	return slices.Contains(e.Types(), string(t))
}

const signatureInGo = `// import standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
func receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	hook, err := standardwebhooks.NewWebhook(os.Getenv("WEBHOOK_SECRET"))
	if err != nil || hook.Verify(body, r.Header) != nil {
		http.Error(w, "wrong signature", http.StatusUnauthorized)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}`

const signatureInNode = `import { Webhook } from "standardwebhooks";

app.post("/webhooks", express.raw({ type: "application/json" }), (req, res) => {
  const hook = new Webhook(process.env.WEBHOOK_SECRET);
  try {
    const event = hook.verify(req.body.toString(), req.headers);
    res.sendStatus(204);
  } catch {
    res.sendStatus(401);
  }
});`
