package console

import (
	"net/http"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

func (c *Console) newStoreRoutes() []Route {
	return []Route{
		{Pattern: "GET /stores/new", RouteOptions: view(Person), Handle: c.newStore},
		{Pattern: "POST /stores/new", RouteOptions: databaseForm(Person), Handle: c.createStore},
	}
}

// newStoreView fills the page that creates a store.
type newStoreView struct {
	Form       ui.Form
	Key        string // makes a second submit of the same form return the same store
	BaseDomain string
	Supabase   bool // it can be connected here
}

// The places where a store's data can live.
const (
	managedDatabase = "managed"
	ownDatabase     = "own"
	supabaseProject = "supabase"
)

func (c *Console) newStore(w http.ResponseWriter, r *Request) error {
	return c.showNewStore(w, r, ui.Form{}, newFormKey())
}

func (c *Console) showNewStore(w http.ResponseWriter, r *Request, form ui.Form, key string) error {
	v := newStoreView{Form: form, Key: key, BaseDomain: c.BaseDomain, Supabase: c.Cloud.Configured()}
	return c.render(w, r, form.Status(), formFrame("Create a store"), newStorePage(v))
}

// createStore creates the store and, for a managed database, starts its provisioning.
// Each form has a key: sent twice, it makes one store.
func (c *Console) createStore(w http.ResponseWriter, r *Request) error {
	key := r.PostForm.Get("key")
	store, err := c.Stores.Create(r.Context(), r.Principal, stores.NewStore{
		Name: r.PostForm.Get("name"), Slug: r.PostForm.Get("slug"), IdempotencyKey: key,
	})
	if stoa.CodeOf(err) == stoa.IdempotencyConflict {
		// The form was changed after it had made a store, and means another one.
		key = newFormKey()
		err = stoa.Errorf(stoa.InvalidRequest, "This form has made a store already, which is in your list. Send it again to make another one.")
	}
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showNewStore(w, r, form, key)
	}
	base := "/stores/" + store.Slug
	switch r.PostForm.Get("database") {
	case ownDatabase, supabaseProject:
		return redirect(w, r, base+"/connect?kind="+r.PostForm.Get("database"), store.Name+" was created. Now connect its database.")
	}
	_, err = c.Provisioning.Connect(r.Context(), r.Principal, store.ID, credential.Credentials{Kind: credential.Managed})
	switch code := stoa.CodeOf(err); {
	case err == nil, code == stoa.AlreadyConnected, code == stoa.ProvisioningInProgress: // the form was sent twice
		return redirect(w, r, base+"/provisioning", "")
	case correctable(code):
		// The store exists; the connect page says what stands in the way of its database.
		return redirect(w, r, base+"/connect", store.Name+" was created, but its database could not be started: "+messageOf(err))
	}
	return err
}
