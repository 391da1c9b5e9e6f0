package console

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/supabase"
	"github.com/stoahq/stoa/internal/supabase/link"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

func (c *Console) connectRoutes() []Route {
	connect := scopeOf(authz.ConnectDatabase)
	return []Route{
		{Pattern: "GET /stores/{slug}/connect", RouteOptions: view(connect), Handle: c.connect},
		{Pattern: "POST /stores/{slug}/connect/check", RouteOptions: databaseForm(connect), Handle: c.checkConnection},
		{Pattern: "POST /stores/{slug}/connect", RouteOptions: databaseForm(connect), Handle: c.doConnect},
	}
}

// connectView fills the page that connects a store's database.
type connectView struct {
	Store    stores.Store
	Form     ui.Form
	Kind     string
	Supabase bool // it can be connected here
	Checked  *checkedConnection
	Cloud    cloudView
}

// passwordRefused reports whether the server refused the user or password.
func (c checkedConnection) passwordRefused() bool {
	return c.Finding.Fault != nil && c.Finding.Fault.Code == stoa.DatabaseAuthFailed
}

// form returns the state of the form that sends another password.
func (c checkedConnection) form() ui.Form {
	return ui.Form{Faults: map[string]string{newPassword: c.Finding.Fault.Message}}
}

// checkedConnection is a connection that was tested.
type checkedConnection struct {
	Understood []understood
	Ignored    []string
	Finding    provisioning.Finding
	Sealed     string // the details, for the form that connects
}

// understood is one setting of a pasted connection string.
type understood struct{ Name, Value string }

// cloudView is the state of the store's connection to Supabase.
type cloudView struct {
	Connection    link.Connection
	Organizations []supabase.Organization
	Projects      []supabase.Project
	Regions       []supabase.Region
	Fault         string // why the lists cannot be read
}

func (c *Console) connect(w http.ResponseWriter, r *Request) error {
	store, err := c.unconnectedStore(w, r)
	if err != nil || store == nil {
		return err
	}
	v := connectView{Store: *store, Kind: r.URL.Query().Get("kind")}
	return c.showConnect(w, r, v)
}

// unconnectedStore returns the store of the path while it waits for a database. For
// another one it redirects to the page that shows its state, and returns nil.
func (c *Console) unconnectedStore(w http.ResponseWriter, r *Request) (*stores.Store, error) {
	store, err := c.store(r)
	if err != nil {
		return nil, err
	}
	switch store.Status { //nolint:exhaustive // all others are connected
	case stores.PendingDatabase:
		// Who may not connect a database is told so before they have typed anything.
		_, err := authz.Check(r.Context(), c.Master, r.Principal, store.ID, authz.ConnectDatabase)
		return &store, err
	case stores.Provisioning:
		return nil, redirect(w, r, "/stores/"+store.Slug+"/provisioning", "")
	}
	return nil, redirect(w, r, "/stores/"+store.Slug+"/database", "This store has its database already.")
}

func (c *Console) showConnect(w http.ResponseWriter, r *Request, v connectView) error {
	v.Supabase = c.Cloud.Configured()
	f := storeFrame(v.Store, "database", "Connect a database")
	if !v.Supabase && v.Kind == supabaseProject {
		v.Kind = managedDatabase // as if no kind had been chosen: this platform has no access to Supabase
	}
	switch v.Kind {
	case ownDatabase:
	case supabaseProject:
		f = c.supabaseFrame(f)
		var err error
		if v.Cloud, err = c.readCloud(r, v.Store); err != nil {
			return err
		}
	default:
		v.Kind = managedDatabase
	}
	return c.render(w, r, v.Form.Status(), f, connectPage(v))
}

// readCloud reads what a page about Supabase shows. A fault of Supabase is shown on the
// page.
func (c *Console) readCloud(r *Request, store stores.Store) (v cloudView, err error) {
	if v.Connection, err = c.Cloud.Connection(r.Context(), r.Principal, store.ID); err != nil || v.Connection.State != link.Connected {
		return v, err
	}
	if v.Projects, err = c.Cloud.Projects(r.Context(), r.Principal, store.ID, ""); err == nil {
		v.Organizations, err = c.Cloud.Organizations(r.Context(), r.Principal, store.ID)
	}
	if err == nil {
		v.Regions, err = c.Cloud.Regions(r.Context(), r.Principal, store.ID)
	}
	var known *stoa.Error
	if errors.As(err, &known) && correctable(known.Code) {
		v.Fault, err = known.Message, nil
	}
	return v, err
}

// detailFields are the fields of the form with connection details.
var detailFields = []string{"type", "connectionString", "host", "port", "database", "user", "schema", "password", "tls", "caCertificate", "adopt"}

// newPassword is the field with a password in place of the one in sealed details.
const newPassword = "newPassword"

// sentDetails returns what the form with connection details holds: what was typed, or
// what was sealed when it was tested.
func (c *Console) sentDetails(r *Request, store stores.Store) (map[string]string, error) {
	if sealed := r.PostForm.Get("sealed"); sealed != "" {
		values, err := c.Tenants.Unseal(sealed, detailsOwner(r, store))
		if password := r.PostForm.Get(newPassword); err == nil && password != "" {
			values[newPassword] = password
		}
		return values, err
	}
	values := map[string]string{}
	for _, name := range detailFields {
		if v := strings.TrimSpace(r.PostForm.Get(name)); v != "" {
			values[name] = v
		}
	}
	return values, nil
}

// detailsOwner names whose details are sealed: those of one session for one store.
func detailsOwner(r *Request, store stores.Store) string {
	return store.ID.String() + "/" + r.Principal.SessionID.String()
}

// readDetails converts the values of the form to credentials.
func (c *Console) readDetails(values map[string]string) (credential.Pasted, error) {
	d := tenantdb.ConnectionDetails{
		Type: credential.Kind(values["type"]), ConnectionString: keyring.NewSecret(values["connectionString"]),
		Host: values["host"], Database: values["database"], User: values["user"], Schema: values["schema"],
		Password: keyring.NewSecret(values["password"]), TLS: credential.TLSMode(values["tls"]), CACertificate: values["caCertificate"], Adopt: values["adopt"] != "",
	}
	var faults stoa.Invalid
	if text := values["port"]; text != "" {
		port, err := strconv.Atoi(text)
		if err != nil {
			faults.Add("port", "must be a number, such as 5432")
		}
		d.Port = port
	}
	switch {
	case d.Type == credential.Managed:
		faults.Add("type", "must be the type of your own database")
	case d.ConnectionString.IsZero() && d.Host == "":
		faults.Add("connectionString", "is needed: copy it from your provider's page, with the password in it, or fill in the fields below")
	}
	if err := faults.Err(); err != nil {
		return credential.Pasted{}, err
	}
	pasted, err := c.Tenants.ReadDetails(d)
	if password := values[newPassword]; err == nil && password != "" {
		pasted.Credentials.Password = keyring.NewSecret(password)
	}
	return pasted, err
}

// checkConnection tests pasted connection details and shows what was understood and
// found. Nothing is stored.
func (c *Console) checkConnection(w http.ResponseWriter, r *Request) error {
	store, err := c.unconnectedStore(w, r)
	if err != nil || store == nil {
		return err
	}
	v := connectView{Store: *store, Kind: ownDatabase, Form: ui.Form{Values: typed(r.PostForm)}}
	if v.Checked, err = c.check(r, *store, c.Provisioning.Test); err != nil {
		if v.Form, err = refused(r, err); err != nil {
			return err
		}
	}
	return c.showConnect(w, r, v)
}

// databaseTest tests a database for a store.
type databaseTest func(context.Context, authz.Principal, stoa.StoreID, *credential.Credentials) (provisioning.Finding, error)

func (c *Console) check(r *Request, store stores.Store, test databaseTest) (*checkedConnection, error) {
	values, err := c.sentDetails(r, store)
	if err != nil {
		return nil, err
	}
	pasted, err := c.readDetails(values)
	if err != nil {
		return nil, err
	}
	finding, err := test(r.Context(), r.Principal, store.ID, &pasted.Credentials)
	if err != nil {
		return nil, err
	}
	sealed, err := c.Tenants.Seal(values, detailsOwner(r, store))
	return &checkedConnection{Understood: understand(pasted.Credentials), Ignored: pasted.Ignored, Finding: finding, Sealed: sealed}, err
}

// understand lists what was read from connection details, without secrets.
func understand(d credential.Credentials) (list []understood) {
	add := func(name, value string) {
		if value != "" {
			list = append(list, understood{Name: name, Value: value})
		}
	}
	add("Database system", engineWords(d.Kind, d.Engine))
	add("Server", d.Host)
	if d.Port != 0 {
		add("Port", strconv.Itoa(d.Port))
	}
	add("Database", d.Database)
	add("User", d.User)
	add("Schema", d.Schema)
	password := "not given"
	if !d.Password.IsZero() {
		password = "given"
	}
	add("Password", password)
	tls := map[credential.TLSMode]string{
		credential.TLSVerify: "encrypted, certificate checked", credential.TLSVerifyCA: "encrypted, authority of the certificate checked",
		credential.TLSDisable: "not encrypted",
	}[d.TLS]
	if tls == "" && d.TLS != "" {
		tls = string(d.TLS)
	}
	add("Connection", tls)
	if d.Adopt {
		add("Other tables", "stay as they are")
	}
	return list
}

func engineWords(kind credential.Kind, engine credential.EngineName) string {
	if kind == credential.KindSupabase {
		return "Supabase (PostgreSQL)"
	}
	return engine.Products()
}

// typeOptions are the kinds of an owner's own database.
var typeOptions = func() []ui.Option {
	options := []ui.Option{{Value: "", Label: "As the connection string says"}}
	for _, engine := range credential.Servers {
		options = append(options, ui.Option{Value: string(engine), Label: engine.Products()})
	}
	return append(options, ui.Option{Value: string(credential.KindSupabase), Label: "Supabase"})
}()

// doConnect starts the run that gives the store its database.
func (c *Console) doConnect(w http.ResponseWriter, r *Request) error {
	store, err := c.unconnectedStore(w, r)
	if err != nil || store == nil {
		return err
	}
	if err := c.start(r, *store); err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showConnect(w, r, connectView{Store: *store, Kind: r.PostForm.Get("kind"), Form: form})
	}
	return redirect(w, r, "/stores/"+store.Slug+"/provisioning", "")
}

func (c *Console) start(r *Request, store stores.Store) error {
	switch r.PostForm.Get("kind") {
	case ownDatabase:
		values, err := c.sentDetails(r, store)
		if err != nil {
			return err
		}
		pasted, err := c.readDetails(values)
		if err == nil {
			_, err = c.Provisioning.Connect(r.Context(), r.Principal, store.ID, pasted.Credentials)
		}
		return err
	case supabaseProject:
		choice := link.Choice{Ref: r.PostForm.Get("project")}
		if choice.Ref == "" || choice.Ref == "new" {
			choice = link.Choice{Organization: r.PostForm.Get("organization"), Region: r.PostForm.Get("region")}
		}
		_, err := c.Provisioning.ConnectProject(r.Context(), r.Principal, store.ID, choice)
		return err
	}
	_, err := c.Provisioning.Connect(r.Context(), r.Principal, store.ID, credential.Credentials{Kind: credential.Managed})
	return err
}

// tablesStay says what becomes of the tables that a database holds.
func tablesStay(n int) string {
	switch n {
	case 0:
		return "There are no other tables."
	case 1:
		return "The table that is there stays as it is."
	}
	return "The " + strconv.Itoa(n) + " tables that are there stay as they are."
}
