package console

import (
	"net/http"
	"net/url"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/stores"
)

func (c *Console) domainRoutes() []Route {
	manage := scopeOf(authz.ManageHostnames)
	return []Route{
		{Pattern: "GET /stores/{slug}/domains", RouteOptions: view(scopeOf(authz.ReadStore)), Handle: c.domains},
		{Pattern: "POST /stores/{slug}/domains", RouteOptions: form(manage), Handle: c.addDomain},
		{Pattern: "POST /stores/{slug}/domains/{hostname}/check", RouteOptions: form(manage), Handle: c.checkDomain},
		{Pattern: "POST /stores/{slug}/domains/{hostname}/primary", RouteOptions: form(manage), Handle: c.makeDomainPrimary},
		{Pattern: "GET /stores/{slug}/domains/{hostname}/remove", RouteOptions: view(manage), Handle: c.confirmDomainRemoval},
		{Pattern: "POST /stores/{slug}/domains/{hostname}/remove", RouteOptions: form(manage), Handle: c.removeDomain},
	}
}

// domainsView fills the page of a store's hostnames.
type domainsView struct {
	Form    ui.Form // to add a hostname; its fault may be of another form of the page
	Store   stores.Store
	Domains []domainRow
	Manage  bool
}

// domainRow is one hostname.
type domainRow struct {
	hostnames.Details
	State  ui.State
	Answer string // what the last check met, with its remedy
	Path   string // of its forms
	URL    string // of the store there; empty while it does not answer
}

// The states of a hostname.
var (
	domainAnswers = ui.State{Word: "Active", Kind: ui.Success, Icon: "check"}
	domainWaiting = ui.State{Word: "Waiting for DNS", Kind: ui.Info, Icon: "clock"}
	domainFault   = ui.State{Word: "Needs attention", Kind: ui.Danger, Icon: "alert"}
)

func newDomainRow(c *Console, base string, d hostnames.Details) domainRow {
	name := d.Hostname.Hostname
	row := domainRow{Details: d, State: domainWaiting, Path: base + "/domains/" + url.PathEscape(name)}
	if d.VerifiedAt != nil || !d.Custom {
		row.State, row.URL = domainAnswers, c.storeURL(name)
	}
	if p := d.Verification; p != nil && p.Fault != "" {
		row.State, row.Answer = domainFault, p.Fault.Message(d.RecordName())
	}
	return row
}

func (c *Console) domains(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	return c.showDomains(w, r, store, ui.Form{})
}

func (c *Console) showDomains(w http.ResponseWriter, r *Request, store stores.Store, f ui.Form) error {
	list, err := c.Hostnames.List(r.Context(), r.Principal, store.ID)
	if err != nil {
		return err
	}
	v := domainsView{Form: f, Store: store, Manage: may(r, store, authz.ManageHostnames) && store.Status != stores.Deleting}
	for _, d := range list {
		v.Domains = append(v.Domains, newDomainRow(c, "/stores/"+store.Slug, d))
	}
	return c.render(w, r, f.Status(), storeFrame(store, "domains", "Domains"), domainsPage(v))
}

// changeDomain makes a change and goes back to the list, which shows a refusal above it.
func (c *Console) changeDomain(w http.ResponseWriter, r *Request, change func(stores.Store) (message string, err error)) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	message, err := change(store)
	if err != nil {
		f, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showDomains(w, r, store, f)
	}
	return redirect(w, r, "/stores/"+store.Slug+"/domains", message)
}

func (c *Console) addDomain(w http.ResponseWriter, r *Request) error {
	return c.changeDomain(w, r, func(store stores.Store) (string, error) {
		d, _, err := c.Hostnames.Claim(r.Context(), r.Principal, store.ID, r.PostForm.Get("hostname"))
		return d.Hostname.Hostname + " was added. Now create its DNS records, then check.", err
	})
}

func (c *Console) checkDomain(w http.ResponseWriter, r *Request) error {
	return c.changeDomain(w, r, func(store stores.Store) (string, error) {
		d, err := c.Hostnames.Verify(r.Context(), r.Principal, store.ID, r.PathValue("hostname"))
		if err == nil && d.VerifiedAt != nil && d.Verification.Fault == "" {
			return "The record is there: the store answers at " + d.Hostname.Hostname + ".", nil
		}
		return "", err // the list shows what the check met
	})
}

func (c *Console) makeDomainPrimary(w http.ResponseWriter, r *Request) error {
	return c.changeDomain(w, r, func(store stores.Store) (string, error) {
		d, err := c.Hostnames.MakePrimary(r.Context(), r.Principal, store.ID, r.PathValue("hostname"))
		return d.Hostname.Hostname + " is the main domain now. The others go on answering.", err
	})
}

// customDomain returns the hostname that the path names.
func (c *Console) customDomain(r *Request, store stores.Store) (hostnames.Details, error) {
	list, err := c.Hostnames.List(r.Context(), r.Principal, store.ID)
	if err != nil {
		return hostnames.Details{}, err
	}
	for _, d := range list {
		if d.Custom && d.Hostname.Hostname == r.PathValue("hostname") {
			return d, nil
		}
	}
	return hostnames.Details{}, stoa.Errorf(stoa.NotFound, "This store has no such domain that can be removed.")
}

func (c *Console) confirmDomainRemoval(w http.ResponseWriter, r *Request) error {
	return c.showDomainRemoval(w, r, ui.Form{})
}

func (c *Console) showDomainRemoval(w http.ResponseWriter, r *Request, f ui.Form) error {
	store, err := c.storeFor(r, authz.ManageHostnames)
	if err != nil {
		return err
	}
	d, err := c.customDomain(r, store)
	if err != nil {
		return err
	}
	name := d.Hostname.Hostname
	v := confirmView{
		Form: f, Title: "Remove " + name, Name: name, Button: "Remove the domain", Back: "/stores/" + store.Slug + "/domains",
		Action: newDomainRow(c, "/stores/"+store.Slug, d).Path + "/remove",
		Facts: []string{
			"The store stops answering at " + name + " at once.",
			"Its address " + d.PointTo + " stays.",
			"Another store can add the name. To have it back, you prove anew in the DNS that it is yours.",
		},
	}
	return c.showConfirm(w, r, storeFrame(store, "domains", "Remove a domain"), v)
}

func (c *Console) removeDomain(w http.ResponseWriter, r *Request) error {
	name := r.PathValue("hostname")
	if f, ok := confirmed(r, name); !ok {
		return c.showDomainRemoval(w, r, f)
	}
	return c.changeDomain(w, r, func(store stores.Store) (string, error) {
		return name + " was removed.", c.Hostnames.Remove(r.Context(), r.Principal, store.ID, name)
	})
}
