package console

import (
	"net/http"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// credentialsView fills the page with the credentials of a managed database.
type credentialsView struct {
	Store  stores.Store
	Access credential.Access

	URL, Host, Database, User string
	Port                      int
	Password                  string
	TLS, CACertificate        string
	Snippets                  []credential.Snippet
}

// credentials shows the connection string of a managed database. Each view is in the
// audit log.
func (c *Console) credentials(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	access, err := credential.ParseAccess(r.URL.Query().Get("access"))
	if err != nil {
		return err
	}
	d, err := c.Provisioning.Credentials(r.Context(), r.Principal, store.ID, access)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return c.render(w, r, http.StatusOK, storeFrame(store, "database", "Connection string"), credentialsPage(newCredentialsView(store, access, d)))
}

func newCredentialsView(store stores.Store, access credential.Access, d credential.Credentials) credentialsView {
	v := credentialsView{
		Store: store, Access: access, URL: d.ConnectionString().Reveal(), Host: d.Host, Port: d.Port, Database: d.Database,
		User: d.User, Password: d.Password.Reveal(), CACertificate: d.CACertificate, Snippets: d.Snippets(),
	}
	switch {
	case d.TLS == credential.TLSDisable:
		v.TLS = "none"
	case d.CACertificate != "":
		v.TLS = "required, with the certificate below"
	default:
		v.TLS = "required, with a public certificate"
	}
	return v
}

func (v credentialsView) title() string {
	if v.Access == credential.ReadAccess {
		return "Connection string for reading"
	}
	return "Connection string"
}

func (v credentialsView) warning() string {
	if v.Access == credential.ReadAccess {
		return "Whoever has it can read all data of this store, and change nothing. That you saw it is in the store's activity."
	}
	return "Whoever has it can read and change all data of this store. That you saw it is in the store's activity."
}

// path returns the path of the page for another role.
func (v credentialsView) path(a credential.Access) string {
	return "/stores/" + v.Store.Slug + "/database/credentials?access=" + string(a)
}

func (c *Console) confirmPasswordReset(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ResetPassword)
	if err != nil {
		return err
	}
	if err := c.Provisioning.CheckReset(r.Context(), r.Principal, store.ID); err != nil {
		return err
	}
	return c.showPasswordReset(w, r, store, ui.Form{})
}

func (c *Console) showPasswordReset(w http.ResponseWriter, r *Request, store stores.Store, f ui.Form) error {
	access, err := credential.ParseAccess(r.URL.Query().Get("access"))
	if err != nil {
		return err
	}
	base := "/stores/" + store.Slug + "/database"
	v := confirmView{
		Form: f, Title: "Reset the password of the database", Name: store.Name, Button: "Reset the password",
		Action: base + "/reset-password?access=" + string(access), Back: base,
		Facts: []string{
			"The old password stops working at once.",
			"Your own software is cut off within ten seconds, until it has the new password.",
			"The store itself goes on; shoppers notice nothing.",
		},
	}
	if access == credential.ReadAccess {
		v.Title = "Reset the password for reading"
	}
	return c.showConfirm(w, r, storeFrame(store, "database", "Reset the password"), v)
}

func (c *Console) resetPassword(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ResetPassword)
	if err != nil {
		return err
	}
	access, err := credential.ParseAccess(r.URL.Query().Get("access"))
	if err != nil {
		return err
	}
	if f, ok := confirmed(r, store.Name); !ok {
		return c.showPasswordReset(w, r, store, f)
	}
	if err := c.Provisioning.ResetPassword(r.Context(), r.Principal, store.ID, access); err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showPasswordReset(w, r, store, form)
	}
	return redirect(w, r, "/stores/"+store.Slug+"/database/credentials?access="+string(access), "The database has a new password. Give it to your software.")
}
