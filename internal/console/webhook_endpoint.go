package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/version"
	"github.com/stoahq/stoa/internal/webhooks"
)

func (c *Console) webhookEndpointRoutes() []Route {
	return bothWebhookOwners(func(base string, read, manage Scope) []Route {
		base += "/{endpoint}"
		return []Route{
			{Pattern: "GET " + base, RouteOptions: view(read), Handle: c.webhook},
			{Pattern: "GET " + base + "/live", RouteOptions: stream(read), Handle: c.followWebhook},
			{Pattern: "POST " + base, RouteOptions: form(manage), Handle: c.changeWebhook},
			{Pattern: "POST " + base + "/enable", RouteOptions: form(manage), Handle: c.enableWebhook},
			{Pattern: "POST " + base + "/pause", RouteOptions: form(manage), Handle: c.pauseWebhook},
			{Pattern: "POST " + base + "/test", RouteOptions: form(manage), Handle: c.testWebhook},
			{Pattern: "POST " + base + "/replay", RouteOptions: form(manage), Handle: c.replayWebhook},
			{Pattern: "GET " + base + "/rotate", RouteOptions: view(manage), Handle: c.confirmWebhookRotation},
			{Pattern: "POST " + base + "/rotate", RouteOptions: form(manage), Handle: c.rotateWebhook},
			{Pattern: "GET " + base + "/delete", RouteOptions: view(manage), Handle: c.confirmWebhookDeletion},
			{Pattern: "POST " + base + "/delete", RouteOptions: form(manage), Handle: c.deleteWebhook},
		}
	})
}

// webhookView fills the page of one endpoint.
type webhookView struct {
	webhookOwner
	webhookNow
	Form     ui.Form // the settings
	Version  string  // of the endpoint that the settings were filled with
	Present  bool    // somebody else has changed the endpoint: show what it is now
	Enable   ui.Form
	Replay   ui.Form
	Filter   ui.Form // of the deliveries
	Filtered bool
	Types    []ui.Option
	Groups   []typeGroup
	Live     string // the address of the live part; "": not on this page of the list
}

// webhookNow is the part of the page that is kept up to date.
type webhookNow struct {
	Row        webhookRow
	Path       string // the address of the page
	State      string // of the deliveries; "": all
	Type       string // of their events; "": all
	Deliveries []webhooks.Delivery
	pager
}

// webhookNamed returns the owner and the id of the endpoint that the path names.
func (c *Console) webhookNamed(r *Request, a authz.Action) (webhookOwner, stoa.WebhookID, error) {
	o, err := c.webhookOwner(r, a)
	if err != nil {
		return o, stoa.WebhookID{}, err
	}
	id, err := stoa.ParseID[stoa.WebhookID](r.PathValue("endpoint"))
	if err != nil {
		return o, id, stoa.Errorf(stoa.NotFound, "There is no such endpoint. It may have been deleted.")
	}
	return o, id, nil
}

func deliveryFilter(q url.Values) webhooks.DeliveryFilter {
	return webhooks.DeliveryFilter{State: q.Get("state"), Type: q.Get("type"), Cursor: q.Get("cursor")}
}

// deliveryQuery returns the query that filters deliveries.
func deliveryQuery(state, kind string) url.Values {
	q := url.Values{}
	if state != "" {
		q.Set("state", state)
	}
	if kind != "" {
		q.Set("type", kind)
	}
	return q
}

// stateURL returns the address of the deliveries in a state.
func (v webhookNow) stateURL(state string) string {
	return withQuery(v.Path, deliveryQuery(state, v.Type))
}

func (v webhookNow) title() string {
	if v.Type != "" {
		return "Deliveries of " + v.Type
	}
	return "Deliveries"
}

func (c *Console) readWebhookNow(ctx context.Context, r *Request, o webhookOwner, id stoa.WebhookID, f webhooks.DeliveryFilter) (v webhookNow, err error) {
	e, err := c.Webhooks.Get(ctx, r.Principal, o.Store.ID, id)
	if err != nil {
		return v, err
	}
	v.Row, v.Path, v.State, v.Type = newWebhookRow(e), o.path(id), f.State, f.Type
	list, err := c.Webhooks.Deliveries(ctx, r.Principal, o.Store.ID, id, f)
	v.Deliveries = list.Deliveries
	v.pager = newPager(r, list.NextCursor)
	return v, err
}

func (c *Console) webhook(w http.ResponseWriter, r *Request) error {
	o, id, err := c.webhookNamed(r, authz.ReadWebhooks)
	if err != nil {
		return err
	}
	return c.showWebhook(w, r, o, id, webhookView{})
}

// showWebhook shows the page with the forms of v.
func (c *Console) showWebhook(w http.ResponseWriter, r *Request, o webhookOwner, id stoa.WebhookID, v webhookView) error {
	q := r.URL.Query()
	if r.Method == http.MethodPost {
		q = url.Values{}
	}
	filter := deliveryFilter(q)
	now, err := c.readWebhookNow(r.Context(), r, o, id, filter)
	if stoa.CodeOf(err) == stoa.InvalidRequest { // the filter
		if v.Filter, err = refused(&Request{Request: &http.Request{PostForm: q}}, err); err != nil {
			return err
		}
		if v.Filter.Faults["cursor"] != "" {
			v.Filter.Fault = "This page of the list does not exist. Begin with the newest deliveries."
		} else if v.Filter.Faults["state"] != "" {
			v.Filter.Fault = "There is no such state of a delivery."
		}
	} else if err != nil {
		return err
	}
	v.webhookOwner, v.webhookNow = o, now
	if v.Filter.Values == nil {
		v.Filter.Values = typed(q)
	}
	if v.Version == "" {
		v.Version = now.Row.ETag()
	}
	kept := deliveryQuery(filter.State, filter.Type)
	v.Filtered = len(kept) > 0
	if filter.Cursor == "" && v.Filter.Code == 0 {
		v.Live = withQuery(o.path(id)+"/live", kept)
	}
	if r.Method == http.MethodPost { // the pager would lead to the form's address
		v.pager = newPager(&Request{Request: &http.Request{URL: &url.URL{Path: o.path(id)}}}, nil)
	}
	v.Types = deliveryTypes(o.isPlatform())
	v.Groups = typeGroups(o.isPlatform(), now.Row.Types())
	frame := o.frame("Endpoint")
	return c.render(w, r, max(v.Form.Status(), v.Enable.Status(), v.Replay.Status(), v.Filter.Status()), frame, webhookPage(v))
}

// deliveryTypes lists the types to filter deliveries by.
func deliveryTypes(platform bool) []ui.Option {
	out := []ui.Option{{Value: "", Label: "All"}}
	for _, k := range events.Catalogue() {
		if platform || !k.OfPlatform() {
			out = append(out, ui.Option{Value: string(k.Type), Label: string(k.Type)})
		}
	}
	return out
}

func (c *Console) followWebhook(w http.ResponseWriter, r *Request) error {
	o, id, err := c.webhookNamed(r, authz.ReadWebhooks)
	if err != nil {
		return err
	}
	filter := deliveryFilter(r.URL.Query())
	return c.serveLive(w, r, nil, func(ctx context.Context) (templ.Component, bool, error) {
		now, err := c.readWebhookNow(ctx, r, o, id, filter)
		return webhookPart(now), false, err
	})
}

// changeWebhook saves the settings.
func (c *Console) changeWebhook(w http.ResponseWriter, r *Request) error {
	o, id, err := c.webhookNamed(r, authz.ManageWebhooks)
	if err != nil {
		return err
	}
	change, chosen := webhookChange(r)
	change.Match = version.Match{r.PostForm.Get("version")}
	if !chosen {
		return c.showWebhook(w, r, o, id, webhookView{Form: noTypes(r), Version: r.PostForm.Get("version")})
	}
	_, cause := c.Webhooks.Update(r.Context(), r.Principal, o.Store.ID, id, change)
	if cause == nil {
		return redirect(w, r, o.path(id), "The endpoint was changed.")
	}
	var v webhookView
	if v.Form, v.Version, err = refusedEdit(r, cause); err != nil {
		return err
	}
	if v.Present = v.Form.Code == http.StatusConflict; v.Present {
		v.Form.Fault = "The endpoint was changed since you opened this page. Nothing was saved. What you typed is kept below: look at the differences, then save again."
	}
	return c.showWebhook(w, r, o, id, v)
}

// actOnWebhook makes a change that the page offers as a button. A refusal is shown above the
// page.
func (c *Console) actOnWebhook(w http.ResponseWriter, r *Request, act func(webhookOwner, stoa.WebhookID) (path, message string, err error)) error {
	o, id, err := c.webhookNamed(r, authz.ManageWebhooks)
	if err != nil {
		return err
	}
	path, message, cause := act(o, id)
	if cause == nil {
		return redirect(w, r, path, message)
	}
	f, err := refused(r, cause)
	if err != nil {
		return err
	}
	f.Values = nil // those of the settings are not in this form
	return c.showWebhook(w, r, o, id, webhookView{Form: f})
}

var missedOptions = []ui.Option{
	{Value: "send", Label: "Send what was missed, of the last 30 days"},
	{Value: "skip", Label: "Skip it: send what happens from now on"},
}

func (c *Console) enableWebhook(w http.ResponseWriter, r *Request) error {
	o, id, err := c.webhookNamed(r, authz.ManageWebhooks)
	if err != nil {
		return err
	}
	missed := r.PostForm.Get("missed")
	if missed != "send" && missed != "skip" {
		f := ui.Form{Values: typed(r.PostForm), Faults: map[string]string{"missed": "Choose what becomes of the events that were missed."}, Code: http.StatusUnprocessableEntity}
		return c.showWebhook(w, r, o, id, webhookView{Enable: f})
	}
	return c.actOnWebhook(w, r, func(o webhookOwner, id stoa.WebhookID) (string, string, error) {
		_, err := c.Webhooks.Update(r.Context(), r.Principal, o.Store.ID, id, webhooks.Change{Enabled: new(true), SkipMissed: missed == "skip"})
		return o.path(id), "The endpoint is enabled.", err
	})
}

func (c *Console) pauseWebhook(w http.ResponseWriter, r *Request) error {
	return c.actOnWebhook(w, r, func(o webhookOwner, id stoa.WebhookID) (string, string, error) {
		_, err := c.Webhooks.Update(r.Context(), r.Principal, o.Store.ID, id, webhooks.Change{Enabled: new(false)})
		return o.path(id), "The endpoint is paused. What happens meanwhile waits.", err
	})
}

// testWebhook sends a test event and leads to its delivery, which shows the outcome.
func (c *Console) testWebhook(w http.ResponseWriter, r *Request) error {
	return c.actOnWebhook(w, r, func(o webhookOwner, id stoa.WebhookID) (string, string, error) {
		d, err := c.Webhooks.Test(r.Context(), r.Principal, o.Store.ID, id)
		return deliveryPath(o.path(id), d.ID), "A test event is on its way. This page shows what the endpoint answers.", err
	})
}

// timeOf parses the time in UTC that a field has. An empty field means none.
func timeOf(field string, form ui.Form) *time.Time {
	text := form.Values.Get(field)
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if at, err := time.Parse(layout, text); err == nil {
			return &at
		}
	}
	if text != "" {
		form.Faults[field] = "Write the time as 2026-03-31T14:30."
	}
	return nil
}

func (c *Console) replayWebhook(w http.ResponseWriter, r *Request) error {
	o, id, err := c.webhookNamed(r, authz.ManageWebhooks)
	if err != nil {
		return err
	}
	f := ui.Form{Values: typed(r.PostForm), Faults: map[string]string{}, Code: http.StatusUnprocessableEntity}
	from, to := timeOf("from", f), timeOf("to", f)
	if from == nil && f.Faults["from"] == "" {
		f.Faults["from"] = "Say from when on events are sent again."
	}
	if len(f.Faults) > 0 {
		return c.showWebhook(w, r, o, id, webhookView{Replay: f})
	}
	count, cause := c.Webhooks.Replay(r.Context(), r.Principal, o.Store.ID, id, webhooks.Range{From: *from, To: to})
	if cause != nil {
		if f, err = refused(r, cause); err != nil {
			return err
		}
		return c.showWebhook(w, r, o, id, webhookView{Replay: f})
	}
	message := "Nothing has happened in this time: there is nothing to send again."
	if count > 0 {
		message = fmt.Sprintf("The events of this time are sent again: up to %s.", ui.Thousands(count))
	}
	return redirect(w, r, o.path(id), message)
}

func (c *Console) confirmWebhookRotation(w http.ResponseWriter, r *Request) error {
	o, id, err := c.webhookNamed(r, authz.ManageWebhooks)
	if err != nil {
		return err
	}
	return c.showWebhookRotation(w, r, o, id, ui.Form{})
}

func (c *Console) showWebhookRotation(w http.ResponseWriter, r *Request, o webhookOwner, id stoa.WebhookID, f ui.Form) error {
	e, err := c.Webhooks.Get(r.Context(), r.Principal, o.Store.ID, id)
	if err != nil {
		return err
	}
	facts := []string{
		"The new secret is shown once. Store it where your program reads its secrets.",
		"For 24 hours each request is signed with both secrets, so that no event is lost meanwhile.",
	}
	if e.OldUntil != nil && c.Master.Now().Before(*e.OldUntil) {
		facts = append(facts, "The secret before the present one is still in use, until "+e.OldUntil.UTC().Format("2 January 2006, 15:04 UTC")+". It ends at once.")
	}
	return c.showConfirm(w, r, o.frame("New secret"), confirmView{
		Form: f, Title: "A new secret for the endpoint at " + newWebhookRow(e).host(), Button: "Make a new secret", Facts: facts, Back: o.path(id),
		Action: o.path(id) + "/rotate?version=" + url.QueryEscape(e.ETag()),
	})
}

// rotateWebhook makes a new secret and shows it in this answer alone. A form that is sent
// again makes no second one, which would end the one that programs use.
func (c *Console) rotateWebhook(w http.ResponseWriter, r *Request) error {
	o, id, err := c.webhookNamed(r, authz.ManageWebhooks)
	if err != nil {
		return err
	}
	e, secret, cause := c.Webhooks.RotateSecret(r.Context(), r.Principal, o.Store.ID, id, version.Match{r.URL.Query().Get("version")})
	if cause == nil {
		return c.showNewSecret(w, r, o, e, secret, "The endpoint has a new secret. The one before is valid for 24 hours.")
	}
	f, err := refused(r, cause)
	if err != nil {
		return err
	}
	if stoa.CodeOf(cause) == stoa.EditConflict {
		f.Code = http.StatusConflict
		f.Fault = "The endpoint was changed since this form was opened: it may have a new secret already, which was shown once. Make another one only if you have not kept that one."
	}
	return c.showWebhookRotation(w, r, o, id, f)
}

func (c *Console) confirmWebhookDeletion(w http.ResponseWriter, r *Request) error {
	o, id, err := c.webhookNamed(r, authz.ManageWebhooks)
	if err != nil {
		return err
	}
	e, err := c.Webhooks.Get(r.Context(), r.Principal, o.Store.ID, id)
	if err != nil {
		return err
	}
	return c.showWebhookDeletion(w, r, o, newWebhookRow(e), ui.Form{})
}

func (c *Console) showWebhookDeletion(w http.ResponseWriter, r *Request, o webhookOwner, e webhookRow, f ui.Form) error {
	return c.showConfirm(w, r, o.frame("Delete an endpoint"), confirmView{
		Form: f, Title: "Delete the endpoint at " + e.host(), Name: e.host(), Button: "Delete the endpoint", Action: o.path(e.ID) + "/delete", Back: o.path(e.ID),
		Facts: []string{
			"Nothing is sent to " + e.Address + " any more.", "Its secret ends, and what waits for it is dropped.",
			"To stop it for a while, pause it instead.",
		},
	})
}

func (c *Console) deleteWebhook(w http.ResponseWriter, r *Request) error {
	o, id, err := c.webhookNamed(r, authz.ManageWebhooks)
	if err != nil {
		return err
	}
	e, err := c.Webhooks.Get(r.Context(), r.Principal, o.Store.ID, id)
	if err != nil {
		return err
	}
	row := newWebhookRow(e)
	if f, ok := confirmed(r, row.host()); !ok {
		return c.showWebhookDeletion(w, r, o, row, f)
	}
	if err := c.Webhooks.Delete(r.Context(), r.Principal, o.Store.ID, id, nil); err != nil {
		return err
	}
	return redirect(w, r, o.Base, "The endpoint at "+row.host()+" was deleted.")
}
