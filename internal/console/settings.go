package console

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/version"
	"github.com/stoahq/stoa/internal/web"
)

func (c *Console) settingsRoutes() []Route {
	update, suspend, remove := scopeOf(authz.UpdateStore), scopeOf(authz.SuspendStore), scopeOf(authz.DeleteStore)
	return []Route{
		{Pattern: "GET /stores/{slug}/settings", RouteOptions: view(scopeOf(authz.ReadStore)), Handle: c.settings},
		{Pattern: "POST /stores/{slug}/settings", RouteOptions: form(update), Handle: c.saveSettings},
		{Pattern: "POST /stores/{slug}/settings/preview", RouteOptions: form(update), Handle: c.previewSettings},
		{Pattern: "POST /stores/{slug}/settings/suspend", RouteOptions: form(suspend), Handle: c.suspendStore},
		{Pattern: "POST /stores/{slug}/settings/resume", RouteOptions: form(suspend), Handle: c.resumeStore},
		{Pattern: "GET /stores/{slug}/settings/delete", RouteOptions: view(remove), Handle: c.confirmDeletion},
		{Pattern: "POST /stores/{slug}/settings/delete", RouteOptions: form(remove), Handle: c.deleteStore},
		{Pattern: "POST /stores/{slug}/settings/restore", RouteOptions: form(remove), Handle: c.restoreStore},
	}
}

// settingsView fills the page of a store's settings.
type settingsView struct {
	Form      ui.Form
	Store     stores.Store
	Profile   storedata.Profile // zero while it cannot be read
	Version   string            // of the profile that the form was filled from
	Conflicts []settingConflict
	Preview   previewView
	URL       string // of the store's own page; empty while it answers nowhere
	Hostname  string
	Edit      bool // the profile can be changed
	Why       string
	Suspend   bool // the caller may suspend and resume
	Delete    bool // the caller may delete and restore
}

// settingConflict is a field whose present value is not what was typed.
type settingConflict struct{ Label, Present string }

// previewView fills the preview of the store's page.
type previewView struct {
	Name, Description, LogoURL, Color, ContactEmail string
}

// profileText is a text of the profile with its place in the form.
type profileText struct {
	ui.Field
	of    func(*storedata.Profile) *string
	patch func(*storedata.ProfilePatch) **string
}

// settingGroup is a group of texts of the form.
type settingGroup struct {
	Title  string
	Fields []profileText
}

// settingGroups are the texts of the profile as the form shows them. The description is
// a text of several lines and stands apart.
var settingGroups = []settingGroup{
	{"Name and address", []profileText{
		{ui.Field{Name: "name", Label: "Name", Autocomplete: "off"},
			func(p *storedata.Profile) *string { return &p.Name }, func(p *storedata.ProfilePatch) **string { return &p.Name }},
		{ui.Field{Name: "slug", Label: "Short name in addresses", Autocomplete: "off",
			Hint: "Lower-case letters, digits and hyphens. If you change it, the address of before leads nowhere; it is kept for you for a while."},
			func(p *storedata.Profile) *string { return &p.Slug }, func(p *storedata.ProfilePatch) **string { return &p.Slug }},
	}},
	{"Look", []profileText{
		{ui.Field{Name: "logoUrl", Label: "Logo", Optional: true, InputMode: "url", Hint: "The https:// address of a picture."},
			func(p *storedata.Profile) *string { return &p.LogoURL }, func(p *storedata.ProfilePatch) **string { return &p.LogoURL }},
	}},
	{"Contact", []profileText{
		{ui.Field{Name: "contactEmail", Label: "E-mail address", Optional: true, InputMode: "email", Hint: "Shoppers see it."},
			func(p *storedata.Profile) *string { return &p.ContactEmail }, func(p *storedata.ProfilePatch) **string { return &p.ContactEmail }},
		{ui.Field{Name: "contactPhone", Label: "Phone", Optional: true, InputMode: "tel"},
			func(p *storedata.Profile) *string { return &p.ContactPhone }, func(p *storedata.ProfilePatch) **string { return &p.ContactPhone }},
		{ui.Field{Name: "website", Label: "Website", Optional: true, InputMode: "url"},
			func(p *storedata.Profile) *string { return &p.Website }, func(p *storedata.ProfilePatch) **string { return &p.Website }},
	}},
	{"Postal address", []profileText{
		{ui.Field{Name: "addressLine1", Label: "Address, line 1", Optional: true},
			func(p *storedata.Profile) *string { return &p.AddressLine1 }, func(p *storedata.ProfilePatch) **string { return &p.AddressLine1 }},
		{ui.Field{Name: "addressLine2", Label: "Address, line 2", Optional: true},
			func(p *storedata.Profile) *string { return &p.AddressLine2 }, func(p *storedata.ProfilePatch) **string { return &p.AddressLine2 }},
		{ui.Field{Name: "postalCode", Label: "Postal code", Optional: true},
			func(p *storedata.Profile) *string { return &p.PostalCode }, func(p *storedata.ProfilePatch) **string { return &p.PostalCode }},
		{ui.Field{Name: "city", Label: "City", Optional: true},
			func(p *storedata.Profile) *string { return &p.City }, func(p *storedata.ProfilePatch) **string { return &p.City }},
		{ui.Field{Name: "region", Label: "Region", Optional: true},
			func(p *storedata.Profile) *string { return &p.Region }, func(p *storedata.ProfilePatch) **string { return &p.Region }},
		{ui.Field{Name: "country", Label: "Country", Optional: true, Hint: "Two letters, such as AT."},
			func(p *storedata.Profile) *string { return &p.Country }, func(p *storedata.ProfilePatch) **string { return &p.Country }},
	}},
	{"Money, time and language", []profileText{
		{ui.Field{Name: "currency", Label: "Currency", Hint: "Three letters, such as EUR."},
			func(p *storedata.Profile) *string { return &p.Currency }, func(p *storedata.ProfilePatch) **string { return &p.Currency }},
		{ui.Field{Name: "timezone", Label: "Time zone", Hint: "Such as Europe/Vienna."},
			func(p *storedata.Profile) *string { return &p.Timezone }, func(p *storedata.ProfilePatch) **string { return &p.Timezone }},
		{ui.Field{Name: "locale", Label: "Language", Hint: "Such as en or de-AT."},
			func(p *storedata.Profile) *string { return &p.Locale }, func(p *storedata.ProfilePatch) **string { return &p.Locale }},
	}},
}

var descriptionText = profileText{
	ui.Field{Name: "description", Label: "Description", Optional: true, Hint: "What the store sells, in a few sentences. Shoppers see it below the name."},
	func(p *storedata.Profile) *string { return &p.Description }, func(p *storedata.ProfilePatch) **string { return &p.Description },
}

// profileTexts lists all texts of the form.
func profileTexts() []profileText {
	out := []profileText{descriptionText}
	for _, g := range settingGroups {
		out = append(out, g.Fields...)
	}
	return out
}

// field is the control of a text, filled with the profile's value.
func (t profileText) field(p storedata.Profile) ui.Field {
	f := t.Field
	f.Value = *t.of(&p)
	return f
}

func (c *Console) settings(w http.ResponseWriter, r *Request) error {
	store, err := c.storeWithProfile(r)
	if err != nil {
		return err
	}
	return c.showSettings(w, r, c.newSettingsView(r, store))
}

// storeWithProfile returns the store that the path names, with its profile unless its
// database cannot be read.
func (c *Console) storeWithProfile(r *Request) (stores.Store, error) {
	found, err := c.store(r)
	if err != nil {
		return stores.Store{}, err
	}
	store, err := c.Stores.Get(r.Context(), r.Principal, found.ID)
	if err == nil && store.Profile != nil {
		store.Profile.Name, store.Profile.Slug = store.Name, store.Slug // the master has the newer ones
	}
	return store, err
}

func (c *Console) newSettingsView(r *Request, store stores.Store) settingsView {
	v := settingsView{
		Store: store, Version: store.Version(), Hostname: primaryHostname(store),
		Suspend: may(r, store, authz.SuspendStore), Delete: may(r, store, authz.DeleteStore),
	}
	if v.Hostname != "" && store.Status == stores.Active {
		v.URL = c.storeURL(v.Hostname)
	}
	if store.Profile != nil {
		v.Profile = *store.Profile
		v.Preview = previewView{Name: v.Profile.Name, Description: v.Profile.Description, LogoURL: v.Profile.LogoURL, Color: primaryColor(v.Profile.Theme), ContactEmail: v.Profile.ContactEmail}
	}
	switch {
	case store.Status == stores.PendingDatabase || store.Status == stores.Provisioning:
		v.Why = "The store's profile is kept in its database. Connect one first; then you can change it here."
	case store.Status == stores.Suspended:
		v.Why = "The store is suspended. Resume it to change its profile."
	case store.Status == stores.Deleting:
		v.Why = "The store is being deleted. Restore it to change its profile."
	case store.Profile == nil:
		v.Why = "The store's database cannot be reached at the moment, so that its profile cannot be shown or changed. See its database page."
	case !may(r, store, authz.UpdateStore):
		v.Why = "Your role (" + string(store.Role) + ") does not change the profile."
	default:
		v.Edit = true
	}
	return v
}

func (c *Console) showSettings(w http.ResponseWriter, r *Request, v settingsView) error {
	return c.render(w, r, v.Form.Status(), storeFrame(v.Store, "settings", "Settings"), settingsPage(v))
}

// saveSettings writes the fields that differ from what the form was filled with. If
// somebody else has changed the store since then, it shows what they have written beside
// what was typed.
func (c *Console) saveSettings(w http.ResponseWriter, r *Request) error {
	store, err := c.storeWithProfile(r)
	if err != nil {
		return err
	}
	var profile storedata.Profile
	if store.Profile != nil {
		profile = *store.Profile
	}
	patch, faults := settingsPatch(r.PostForm, profile)
	if err = faults.Err(); err == nil {
		_, err = c.Stores.Update(r.Context(), r.Principal, store.ID, version.Match{r.PostForm.Get("version")}, patch)
	}
	if err != nil {
		return c.refuseSettings(w, r, store, err)
	}
	slug := store.Slug
	if patch.Slug != nil {
		slug = *patch.Slug
	}
	return redirect(w, r, "/stores/"+slug+"/settings", savedMessage(patch))
}

func (c *Console) refuseSettings(w http.ResponseWriter, r *Request, store stores.Store, cause error) error {
	f, version, err := refusedEdit(r, cause)
	if err != nil {
		return err
	}
	if version == "" { // what was read before the refusal may be older than the change that caused it
		if store, err = c.storeWithProfile(r); err != nil {
			return err
		}
	}
	v := c.newSettingsView(r, store)
	v.Form = f
	v.Preview = previewOf(r.PostForm)
	if version == "" {
		v.Conflicts = conflictsOf(r.PostForm, v.Profile)
	} else {
		v.Version = version
	}
	return c.showSettings(w, r, v)
}

// settingsPatch returns the fields of the form that differ from the profile. A form that
// lacks a field leaves it unchanged.
func settingsPatch(form url.Values, profile storedata.Profile) (storedata.ProfilePatch, stoa.Invalid) {
	var patch storedata.ProfilePatch
	var faults stoa.Invalid
	for _, t := range profileTexts() {
		if value, sent := sentText(form, t.Name); sent && value != asSent(*t.of(&profile)) {
			*t.patch(&patch) = &value
		}
	}
	if color, sent := sentText(form, "color"); sent && color != primaryColor(profile.Theme) {
		if color != "" && !hexColor.MatchString(color) {
			faults.Add("color", "must be a colour such as #1f6177")
		} else if theme, err := withPrimaryColor(profile.Theme, color); err == nil {
			patch.Theme = &theme
		} else {
			faults.Add("color", "cannot be set while the theme has another shape; change the theme first")
		}
	}
	return patch, faults
}

// sentText returns a text of the form as the domain stores it: browsers send line ends
// as CRLF.
func sentText(form url.Values, name string) (value string, sent bool) {
	_, sent = form[name]
	return asSent(form.Get(name)), sent
}

// asSent returns a text as sentText returns it when a browser sends it back unchanged.
func asSent(text string) string { return strings.TrimSpace(strings.ReplaceAll(text, "\r\n", "\n")) }

// conflictsOf lists the fields whose present value is not what was typed.
func conflictsOf(form url.Values, profile storedata.Profile) []settingConflict {
	var out []settingConflict
	add := func(name, label, present string) {
		if typed, sent := sentText(form, name); sent && typed != asSent(present) {
			out = append(out, settingConflict{Label: label, Present: present})
		}
	}
	for _, t := range profileTexts() {
		add(t.Name, t.Label, *t.of(&profile))
	}
	add("color", "Colour", primaryColor(profile.Theme))
	return out
}

// hexColor matches the colours that a store's page uses.
var hexColor = regexp.MustCompile(`^#(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})$`)

// primaryColor returns the colour that a theme names, or "".
func primaryColor(theme storedata.JSON) string {
	var t struct {
		PrimaryColor string `json:"primaryColor"`
	}
	_ = json.Unmarshal(theme, &t) // a theme of another shape has no such colour
	return t.PrimaryColor
}

// withPrimaryColor returns the theme with another colour and all else as it was.
func withPrimaryColor(theme storedata.JSON, color string) (storedata.JSON, error) {
	members := map[string]json.RawMessage{}
	if len(theme) > 0 {
		if err := json.Unmarshal(theme, &members); err != nil {
			return nil, err
		}
	}
	delete(members, "primaryColor")
	if color != "" {
		members["primaryColor"] = json.RawMessage(strconv.Quote(color))
	}
	text, err := json.Marshal(members)
	return text, err
}

// maxPreview is how much of a text the preview shows, in characters: at least what the
// domain accepts.
const maxPreview = 2000

func previewOf(form url.Values) previewView {
	text := func(name string) string {
		value, _ := sentText(form, name)
		runes := []rune(strings.ToValidUTF8(value, "\uFFFD"))
		return string(runes[:min(len(runes), maxPreview)])
	}
	return previewView{Name: text("name"), Description: text("description"), LogoURL: text("logoUrl"), Color: text("color"), ContactEmail: text("contactEmail")}
}

// safeLogo returns the address of a picture that a browser may load, or "".
func safeLogo(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return ""
	}
	return address
}

// safeColor returns a hex colour, or "".
func safeColor(color string) string {
	if !hexColor.MatchString(color) {
		return ""
	}
	return color
}

// previewSettings answers with the preview of what the form holds. It saves nothing.
func (c *Console) previewSettings(w http.ResponseWriter, r *Request) error {
	if _, err := c.storeFor(r, authz.UpdateStore); err != nil {
		return err
	}
	web.ServeWithPolicy(w, r.Request, http.StatusOK, storePreview(previewOf(r.PostForm)), ContentSecurityPolicy)
	return nil
}

// changeLifecycle makes a change of the store's state and goes back to the settings.
func (c *Console) changeLifecycle(w http.ResponseWriter, r *Request, change func(stores.Store) (message string, err error)) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	message, err := change(store)
	if err != nil {
		f, err := refusedHere(r, err)
		if err != nil {
			return err
		}
		full, err := c.storeWithProfile(r)
		if err != nil {
			return err
		}
		v := c.newSettingsView(r, full)
		v.Form = ui.Form{Fault: f.Fault, Code: f.Code}
		return c.showSettings(w, r, v)
	}
	return redirect(w, r, "/stores/"+store.Slug+"/settings", message)
}

func (c *Console) suspendStore(w http.ResponseWriter, r *Request) error {
	return c.changeLifecycle(w, r, func(s stores.Store) (string, error) {
		return "The store is suspended: shoppers see that it is closed.", c.Stores.Suspend(r.Context(), r.Principal, s.ID)
	})
}

func (c *Console) resumeStore(w http.ResponseWriter, r *Request) error {
	return c.changeLifecycle(w, r, func(s stores.Store) (string, error) {
		return "The store is open again.", c.Stores.Resume(r.Context(), r.Principal, s.ID)
	})
}

func (c *Console) restoreStore(w http.ResponseWriter, r *Request) error {
	return c.changeLifecycle(w, r, func(s stores.Store) (string, error) {
		return "The deletion was cancelled. The store is in the state it had before.", c.Stores.Restore(r.Context(), r.Principal, s.ID)
	})
}

func (c *Console) confirmDeletion(w http.ResponseWriter, r *Request) error {
	return c.showDeletion(w, r, ui.Form{})
}

func (c *Console) showDeletion(w http.ResponseWriter, r *Request, f ui.Form) error {
	store, err := c.storeFor(r, authz.DeleteStore)
	if err != nil {
		return err
	}
	base := "/stores/" + store.Slug + "/settings"
	facts := []string{"The store closes at once: shoppers see that it is closed."}
	if grace := c.Stores.Grace(); grace > 0 {
		facts = append(facts, "You can restore it until "+c.Master.Now().Add(grace).UTC().Format("2 January 2006, 15:04 UTC")+". Its address and domains stay yours until then.")
	} else {
		facts = append(facts, "It cannot be restored: this platform deletes at once.")
	}
	facts = append(facts, "Then its credentials are destroyed, and a database that this platform manages is deleted with all its data.",
		"A database of your own stays as it is.", "Credits of the store cannot be used any more.")
	return c.showConfirm(w, r, storeFrame(store, "settings", "Delete the store"), confirmView{
		Form: f, Title: "Delete " + store.Name, Name: store.Name, Button: "Delete the store", Action: base + "/delete", Back: base, Facts: facts,
	})
}

func (c *Console) deleteStore(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.DeleteStore)
	if err != nil {
		return err
	}
	if f, ok := confirmed(r, store.Name); !ok {
		return c.showDeletion(w, r, f)
	}
	deleted, err := c.Stores.Delete(r.Context(), r.Principal, store.ID)
	if err != nil {
		return err
	}
	if deleted.DeleteAfter == nil || !deleted.DeleteAfter.After(c.Master.Now()) {
		return redirect(w, r, "/stores", store.Name+" is being deleted.")
	}
	return redirect(w, r, "/stores/"+store.Slug+"/settings", "The store is closed and will be deleted. Until "+
		deleted.DeleteAfter.UTC().Format("2 January 2006, 15:04 UTC")+" you can restore it below.")
}

// untilText is the exact time until when a store can be restored.
func untilText(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format("2 January 2006, 15:04 UTC")
}
