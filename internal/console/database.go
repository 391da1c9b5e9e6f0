package console

import (
	"fmt"
	"net/http"
	"time"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

func (c *Console) databaseRoutes() []Route {
	return []Route{
		{Pattern: "GET /stores/{slug}/database", RouteOptions: view(scopeOf(authz.ReadStore)), Handle: c.database},
		{Pattern: "GET /stores/{slug}/database/credentials", RouteOptions: view(scopeOf(authz.ReadCredentials)), Handle: c.credentials},
		{Pattern: "GET /stores/{slug}/database/reset-password", RouteOptions: view(scopeOf(authz.ResetPassword)), Handle: c.confirmPasswordReset},
		{Pattern: "POST /stores/{slug}/database/reset-password", RouteOptions: databaseForm(scopeOf(authz.ResetPassword)), Handle: c.resetPassword},
		{Pattern: "POST /stores/{slug}/database/test", RouteOptions: databaseForm(scopeOf(authz.TestDatabase)), Handle: c.testDatabase},
		{Pattern: "POST /stores/{slug}/database/rotate", RouteOptions: databaseForm(scopeOf(authz.RotateCredentials)), Handle: c.rotateCredentials},
	}
}

// databaseView fills the page of a store's database.
type databaseView struct {
	Store     stores.Store
	Form      ui.Form // of the new credentials
	Finding   *provisioning.Finding
	State     ui.State
	MayTest   bool
	MayRotate bool
	// MayRead: the database has credentials that the caller may see.
	MayRead  bool
	Embedded bool // it has no address
}

func (c *Console) database(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	return c.showDatabase(w, r, databaseView{Store: store})
}

func (c *Console) showDatabase(w http.ResponseWriter, r *Request, v databaseView) error {
	v.State = storeState(v.Store)
	role, own := v.Store.Role, v.Store.Database != nil && v.Store.Database.Kind != credential.Managed
	v.MayTest = role.Can(authz.TestDatabase)
	v.MayRotate = role.Can(authz.RotateCredentials) && own
	v.Embedded = v.Store.Database != nil && v.Store.Database.Engine.Embedded()
	v.MayRead = role.Can(authz.ReadCredentials) && v.Store.Database != nil && !own && !v.Embedded
	return c.render(w, r, v.Form.Status(), storeFrame(v.Store, "database", "Database"), databasePage(v))
}

// testDatabase tests the store's own database and records its health.
func (c *Console) testDatabase(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	finding, err := c.Provisioning.Test(r.Context(), r.Principal, store.ID, nil)
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showDatabase(w, r, databaseView{Store: store, Form: form})
	}
	if store, err = c.store(r); err != nil { // with the health that was recorded
		return err
	}
	return c.showDatabase(w, r, databaseView{Store: store, Finding: &finding})
}

// rotateCredentials replaces the credentials of the store's own database.
func (c *Console) rotateCredentials(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	if err := c.rotate(r, store); err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showDatabase(w, r, databaseView{Store: store, Form: form})
	}
	return redirect(w, r, "/stores/"+store.Slug+"/database", "The new credentials were tested and are in use.")
}

func (c *Console) rotate(r *Request, store stores.Store) error {
	values, err := c.sentDetails(r, store)
	if err != nil {
		return err
	}
	if store.Database != nil && values["type"] == "" && store.Database.Kind == credential.KindSupabase {
		values["type"] = string(credential.KindSupabase)
	}
	pasted, err := c.readDetails(values)
	if err != nil {
		return err
	}
	return c.Provisioning.Rotate(r.Context(), r.Principal, store.ID, pasted.Credentials)
}

// healthWords say how a database is.
func healthWords(d *tenantdb.Info) (ui.Kind, string) {
	switch d.Status {
	case tenantdb.StatusOK:
		return ui.Success, "It answers."
	case tenantdb.StatusFailed:
		return ui.Danger, "It cannot be used: " + faultWords(d.LastError)
	case tenantdb.StatusUnknown:
	}
	return ui.Info, "It was not used yet."
}

// findingWords describe a successful test.
func findingWords(f provisioning.Finding) string {
	words := "The database can be used."
	if f.ServerVersion != "" {
		words += " Server version " + f.ServerVersion + "."
	}
	if f.Latency > 0 {
		words += fmt.Sprintf(" One round trip takes %.1f ms.", float64(f.Latency)/float64(time.Millisecond))
	}
	return words
}
