package console

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
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
	MayRead bool
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
	v.MayRead = role.Can(authz.ReadCredentials) && v.Store.Database != nil && !own && v.Store.Database.Engine != credential.SQLite
	return c.render(w, r, v.Form.Status(), storeFrame(v.Store, "database", "Database"), databasePage(v))
}

// credentialsView fills the page with the credentials of a managed database.
type credentialsView struct {
	Store                      stores.Store
	URL, Host, Database, User  string
	Port                       int
	Password                   string
	Environment, PHP, GoSource string // how software connects
}

// credentials shows the connection string of a managed database. Each view is in the
// audit log.
func (c *Console) credentials(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	d, err := c.Provisioning.Credentials(r.Context(), r.Principal, store.ID)
	if err != nil {
		return err
	}
	v := newCredentialsView(store, d)
	return c.render(w, r, http.StatusOK, storeFrame(store, "database", "Connection string"), credentialsPage(v))
}

func newCredentialsView(store stores.Store, d credential.Credentials) credentialsView {
	scheme, pdo, driver := "postgresql", "pgsql", "pgx"
	if d.Engine == credential.MySQL {
		scheme, pdo, driver = "mysql", "mysql", "mysql"
	}
	address := url.URL{Scheme: scheme, User: url.UserPassword(d.User, d.Password.Reveal()), Host: net.JoinHostPort(d.Host, strconv.Itoa(d.Port)), Path: "/" + d.Database}
	v := credentialsView{
		Store: store, URL: address.String(), Host: d.Host, Port: d.Port, Database: d.Database, User: d.User, Password: d.Password.Reveal(),
		PHP: fmt.Sprintf("new PDO('%s:host=%s;port=%d;dbname=%s', '%s', getenv('DATABASE_PASSWORD'));", pdo, d.Host, d.Port, d.Database, d.User),
	}
	v.Environment = "DATABASE_URL=" + v.URL
	v.GoSource = fmt.Sprintf("sql.Open(%q, os.Getenv(\"DATABASE_URL\"))", driver)
	if d.Engine == credential.MySQL {
		v.GoSource = fmt.Sprintf("sql.Open(%q, %q + os.Getenv(\"DATABASE_PASSWORD\") + %q)", driver, d.User+":",
			"@tcp("+net.JoinHostPort(d.Host, strconv.Itoa(d.Port))+")/"+d.Database)
	}
	return v
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
