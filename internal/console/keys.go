package console

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/stores"
)

func (c *Console) keyRoutes() []Route {
	manage := scopeOf(authz.ManageKeys)
	return []Route{
		{Pattern: "GET /stores/{slug}/keys", RouteOptions: view(manage), Handle: c.keys},
		{Pattern: "POST /stores/{slug}/keys", RouteOptions: form(manage), Handle: c.createKey},
		{Pattern: "GET /stores/{slug}/keys/{key}/revoke", RouteOptions: view(manage), Handle: c.confirmKeyRevocation},
		{Pattern: "POST /stores/{slug}/keys/{key}/revoke", RouteOptions: form(manage), Handle: c.revokeKey},
	}
}

// keysView fills the page of a store's API keys.
type keysView struct {
	Form    ui.Form
	FormKey string // makes a form that is sent twice make one key
	Store   stores.Store
	Keys    []keyRow
	Scopes  []scopeChoice
	Made    *apikeys.Key // the key that was made by this request
	Secret  keyring.Secret
}

// keyRow is one API key.
type keyRow struct {
	apikeys.Key
	Creator string
	State   ui.State
}

// scopeChoice is a scope with what it allows.
type scopeChoice struct{ Scope, About string }

var (
	keyWorks   = ui.State{Word: "Active", Kind: ui.Success, Icon: "check"}
	keyExpired = ui.State{Word: "Expired", Kind: ui.Warning, Icon: "clock"}
)

// keyLifetimes are the offered lifetimes, in days.
var keyLifetimes = []ui.Option{{Value: "", Label: "Never"}, {Value: "30", Label: "In 30 days"}, {Value: "90", Label: "In 90 days"}, {Value: "365", Label: "In a year"}}

func (c *Console) keys(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	return c.showKeys(w, r, keysView{Store: store, FormKey: newFormKey()})
}

func (c *Console) showKeys(w http.ResponseWriter, r *Request, v keysView) error {
	list, err := c.APIKeys.List(r.Context(), r.Principal, v.Store.ID)
	if err != nil {
		return err
	}
	names, err := c.memberNames(r, v.Store)
	if err != nil {
		return err
	}
	now := c.Master.Now()
	for _, k := range list {
		row := keyRow{Key: k, Creator: names[k.CreatedBy], State: keyWorks}
		if k.ExpiresAt != nil && !now.Before(*k.ExpiresAt) {
			row.State = keyExpired
		}
		v.Keys = append(v.Keys, row)
	}
	v.Scopes = scopeChoices()
	return c.render(w, r, v.Form.Status(), storeFrame(v.Store, "keys", "API keys"), keysPage(v))
}

// scopeChoices lists the scopes, each with what authz says it allows.
func scopeChoices() []scopeChoice {
	var out []scopeChoice
	at := map[authz.Scope]int{}
	for _, rule := range authz.Rules() {
		if rule.Scope == "" {
			continue
		}
		if i, known := at[rule.Scope]; known {
			out[i].About += ". " + rule.About
			continue
		}
		at[rule.Scope] = len(out)
		out = append(out, scopeChoice{Scope: string(rule.Scope), About: rule.About})
	}
	return out
}

// createKey makes a key and shows it in this answer alone: no address, cookie or log
// holds it.
func (c *Console) createKey(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	n := apikeys.NewKey{Name: r.PostForm.Get("name"), Scopes: r.PostForm["scopes"], FormKey: r.PostForm.Get("key")}
	if days, err := strconv.Atoi(r.PostForm.Get("expires")); err == nil && days > 0 && days <= 3650 {
		at := c.Master.Now().Add(time.Duration(days) * 24 * time.Hour)
		n.ExpiresAt = &at
	}
	made, secret, err := c.APIKeys.Create(r.Context(), r.Principal, store.ID, n)
	v := keysView{Store: store, FormKey: newFormKey()}
	if err != nil {
		if v.Form, err = refused(r, err); err != nil {
			return err
		}
		if _, sent := r.PostForm["scopes"]; !sent && v.Form.Faults["scopes"] != "" {
			v.Form.Fault, v.Form.Faults["scopes"] = "", "Choose at least one."
		}
		return c.showKeys(w, r, v)
	}
	v.Made, v.Secret = &made, secret
	w.Header().Set("Cache-Control", "no-store")
	return c.showKeys(w, r, v)
}

// key returns the key that the path names.
func (c *Console) key(r *Request, store stores.Store) (apikeys.Key, error) {
	list, err := c.APIKeys.List(r.Context(), r.Principal, store.ID)
	if err != nil {
		return apikeys.Key{}, err
	}
	for _, k := range list {
		if k.ID.String() == r.PathValue("key") {
			return k, nil
		}
	}
	return apikeys.Key{}, stoa.Errorf(stoa.NotFound, "This store has no such key. It may have been revoked.")
}

func (c *Console) confirmKeyRevocation(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	k, err := c.key(r, store)
	if err != nil {
		return err
	}
	return c.showKeyRevocation(w, r, store, k, ui.Form{})
}

func (c *Console) showKeyRevocation(w http.ResponseWriter, r *Request, store stores.Store, k apikeys.Key, f ui.Form) error {
	base := "/stores/" + store.Slug + "/keys"
	return c.showConfirm(w, r, storeFrame(store, "keys", "Revoke a key"), confirmView{
		Form: f, Title: "Revoke " + k.Name, Name: k.Name, Button: "Revoke the key", Action: base + "/" + k.ID.String() + "/revoke", Back: base,
		Facts: []string{"The key " + k.Prefix + "… stops working at once.", "Programs that use it get an error until they have another key.", "It cannot be made valid again."},
	})
}

func (c *Console) revokeKey(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	k, err := c.key(r, store)
	if err != nil {
		return err
	}
	if f, ok := confirmed(r, k.Name); !ok {
		return c.showKeyRevocation(w, r, store, k, f)
	}
	if err := c.APIKeys.Revoke(r.Context(), r.Principal, store.ID, k.ID); err != nil {
		return err
	}
	return redirect(w, r, "/stores/"+store.Slug+"/keys", k.Name+" was revoked.")
}

func scopesOf(k apikeys.Key) []string { return strings.Fields(k.Scopes) }
