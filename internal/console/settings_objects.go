package console

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/version"
)

func (c *Console) settingsObjectsRoutes() []Route {
	return []Route{
		{Pattern: "GET /stores/{slug}/settings/objects", RouteOptions: view(scopeOf(authz.ReadStore)), Handle: c.settingsObjects},
		{Pattern: "POST /stores/{slug}/settings/objects", RouteOptions: form(scopeOf(authz.UpdateStore)), Handle: c.saveSettingsObjects},
	}
}

// maxFormObject is the largest object that the page shows in a form, in bytes. Sent by a
// browser, two of them fit into the limit of a form.
const maxFormObject = 10 << 10

// settingsObjectsView fills the page of the profile's JSON objects.
type settingsObjectsView struct {
	settingsView
	Objects []settingsObject
}

// settingsObject is an object of the profile with its place in the form.
type settingsObject struct {
	ui.Field
	Large bool // too large for the form: it is changed over the API
}

// formObjects returns the objects of a profile that the page can change.
func formObjects(p storedata.Profile) []settingsObject {
	objects := []settingsObject{
		{Field: ui.Field{Name: "theme", Label: "Theme", Hint: `The store's page uses its "primaryColor". Shoppers' programs can read all of it.`, Value: indented(p.Theme)}},
		{Field: ui.Field{Name: "settings", Label: "Settings", Hint: "For the store's own programs. Shoppers do not see it.", Value: indented(p.Settings)}},
	}
	for i, o := range objects {
		objects[i].Optional, objects[i].Autocomplete, objects[i].Large = true, "off", len(o.Value) > maxFormObject
	}
	return objects
}

func indented(object storedata.JSON) string {
	var out bytes.Buffer
	if json.Indent(&out, []byte(object.String()), "", "  ") != nil {
		return object.String()
	}
	return out.String()
}

func (c *Console) settingsObjects(w http.ResponseWriter, r *Request) error {
	store, err := c.storeWithProfile(r)
	if err != nil {
		return err
	}
	return c.showSettingsObjects(w, r, c.newSettingsView(r, store))
}

func (c *Console) showSettingsObjects(w http.ResponseWriter, r *Request, v settingsView) error {
	return c.render(w, r, v.Form.Status(), storeFrame(v.Store, "settings", "Theme and settings as JSON"),
		settingsObjectsPage(settingsObjectsView{v, formObjects(v.Profile)}))
}

// saveSettingsObjects replaces the objects that differ from the store's. If somebody else
// has changed the store meanwhile, what was typed is kept and nothing is saved.
func (c *Console) saveSettingsObjects(w http.ResponseWriter, r *Request) error {
	store, err := c.storeWithProfile(r)
	if err != nil {
		return err
	}
	var profile storedata.Profile
	if store.Profile != nil {
		profile = *store.Profile
	}
	patch := storedata.ProfilePatch{Theme: changedObject(r.PostForm, "theme", profile.Theme), Settings: changedObject(r.PostForm, "settings", profile.Settings)}
	if _, err = c.Stores.Update(r.Context(), r.Principal, store.ID, version.Match{r.PostForm.Get("version")}, patch); err != nil {
		f, version, err := refusedEdit(r, err)
		if err != nil {
			return err
		}
		if store, err = c.storeWithProfile(r); err != nil {
			return err
		}
		v := c.newSettingsView(r, store)
		v.Form = f
		if version != "" {
			v.Version = version
		}
		return c.showSettingsObjects(w, r, v)
	}
	return redirect(w, r, "/stores/"+store.Slug+"/settings/objects", savedMessage(patch))
}

// changedObject returns the object of the form if it means another one than present, or
// nil. The domain checks what was typed.
func changedObject(form url.Values, name string, present storedata.JSON) *storedata.JSON {
	typed, sent := sentText(form, name)
	if !sent || typed == asSent(indented(present)) {
		return nil
	}
	object := storedata.JSON(typed)
	return &object
}

// refusedEdit is refused for a form that was filled with a version of the store. It
// returns that version, so that the form which is shown again carries it, or "" for a
// form which is older than the store: it carries the present one then.
func refusedEdit(r *Request, cause error) (f ui.Form, version string, err error) {
	if f, err = refused(r, cause); err != nil {
		return f, "", err
	}
	if stoa.CodeOf(cause) != stoa.EditConflict {
		return f, r.PostForm.Get("version"), nil
	}
	f.Code = http.StatusConflict
	f.Fault = "Somebody has changed the store since you opened this page. Nothing was saved. What you typed is kept below: look at the differences, then save again."
	return f, "", nil
}

// savedMessage says what a patch has done.
func savedMessage(patch storedata.ProfilePatch) string {
	if len(patch.Fields()) == 0 {
		return "Nothing was changed."
	}
	return "The settings were saved."
}
