package console

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/web"
)

func (c *Console) auditLogRoutes() []Route {
	read := scopeOf(authz.ReadAudit)
	return []Route{
		{Pattern: "GET /stores/{slug}/activity/audit", RouteOptions: view(read), Handle: c.auditLog},
		{Pattern: "GET /stores/{slug}/activity.csv", RouteOptions: download(read), Handle: c.auditLogCSV},
	}
}

// auditLogView fills the page of a store's audit log.
type auditLogView struct {
	Form     ui.Form // the filters
	Store    stores.Store
	Filtered bool
	Entries  []auditRow
	Actions  []ui.Option
	People   []ui.Option
	Path     string
	CSV      string
	pager
}

// auditRow is one entry of the log.
type auditRow struct {
	audit.Entry
	Words   string
	Details []eventDetail
	By      string // the address of the filter for who did it
}

type eventDetail struct{ Name, Value string }

const (
	auditPage       = 50
	maxActionFilter = 100 // bytes
)

var outcomeOptions = []ui.Option{{Value: "", Label: "All"}, {Value: string(audit.Success), Label: "Done"}, {Value: string(audit.Denied), Label: "Refused"}, {Value: string(audit.Failed), Label: "Failed"}}

// auditLogFilter reads the filters of the address. Every fault is reported by field.
func auditLogFilter(q url.Values) (audit.Filter, ui.Form) {
	f := audit.Filter{Action: q.Get("action"), Outcome: q.Get("outcome"), Limit: auditPage, Cursor: q.Get("cursor")}
	form := ui.Form{Values: typed(q), Faults: map[string]string{}}
	if len(f.Action) > maxActionFilter {
		form.Faults["action"] = "There is no such action."
	}
	if !slices.ContainsFunc(outcomeOptions, func(o ui.Option) bool { return o.Value == f.Outcome }) {
		form.Faults["outcome"] = "There is no such outcome."
	}
	if text := q.Get("user"); text != "" {
		var err error
		if f.UserID, err = stoa.ParseID[stoa.UserID](text); err != nil {
			form.Faults["user"] = "There is no such person."
		}
	}
	f.From = dayOf("from", 0, form)
	f.To = dayOf("to", 1, form) // the day is included
	if len(form.Faults) > 0 {
		form.Code = http.StatusUnprocessableEntity
	}
	return f, form
}

// dayOf parses the day in UTC that a field has and adds days to it. An empty field means
// none. An invalid one stays as it was typed: ui.Input shows it as text.
func dayOf(field string, days int, form ui.Form) *time.Time {
	text := form.Values.Get(field)
	if text == "" {
		return nil
	}
	day, err := time.Parse(time.DateOnly, text)
	if err != nil {
		form.Faults[field] = "Write the day as 2026-03-31."
		return nil
	}
	day = day.AddDate(0, 0, days)
	return &day
}

// auditFilters are the parameters that filter the audit log.
var auditFilters = []string{"action", "outcome", "user", "from", "to"}

// filterQuery returns the address's filters without the place in the list.
func filterQuery(q url.Values) url.Values {
	out := url.Values{}
	for _, name := range auditFilters {
		if value := q.Get(name); value != "" {
			out.Set(name, value)
		}
	}
	return out
}

func withQuery(path string, q url.Values) string {
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

func (c *Console) auditLog(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ReadAudit)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	filter, form := auditLogFilter(q)
	kept := filterQuery(q)
	path := auditLogPath(store)
	v := auditLogView{
		Form: form, Store: store, Filtered: len(kept) > 0, Path: path, CSV: withQuery(activityPath(store)+".csv", kept),
		Actions: actionOptions(filter.Action),
	}
	if v.People, err = c.personOptions(r, store, q.Get("user")); err != nil {
		return err
	}
	if len(form.Faults) == 0 {
		if err := c.readAuditLog(r, &v, filter); err != nil {
			return err
		}
	}
	return c.render(w, r, v.Form.Status(), storeFrame(store, "activity", "Audit log"), auditLogPage(v))
}

func (c *Console) readAuditLog(r *Request, v *auditLogView, filter audit.Filter) error {
	log, err := authz.ReadAuditLog(r.Context(), c.Master, r.Principal, v.Store.ID, filter)
	if stoa.CodeOf(err) == stoa.InvalidRequest { // the cursor
		v.Form.Fault, v.Form.Code = "This page of the list does not exist. Begin with the newest entries.", http.StatusUnprocessableEntity
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range log.Entries {
		v.Entries = append(v.Entries, newAuditRow(v.Path, e))
	}
	v.pager = newPager(r, log.NextCursor)
	return nil
}

func newAuditRow(path string, e audit.Entry) auditRow {
	row := auditRow{Entry: e, Words: actionWords(e), Details: detailsOf(e.Details)}
	if e.UserID != nil {
		row.By = withQuery(path, url.Values{"user": {e.UserID.String()}})
	}
	return row
}

// detailsOf returns the members of a JSON object of texts that are not empty.
func detailsOf(object string) (out []eventDetail) {
	var details map[string]string
	_ = json.Unmarshal([]byte(object), &details) // written as JSON by package audit or events
	for _, name := range slices.Sorted(maps.Keys(details)) {
		if details[name] != "" {
			out = append(out, eventDetail{Name: name, Value: details[name]})
		}
	}
	return out
}

// actionOptions lists the actions to filter by, and the chosen one.
func actionOptions(chosen string) []ui.Option {
	out := []ui.Option{{Value: "", Label: "All"}}
	for _, action := range audit.StoreActions {
		out = append(out, ui.Option{Value: action, Label: actionWords(audit.Entry{Action: action})})
	}
	if chosen != "" && len(chosen) <= maxActionFilter && !slices.Contains(audit.StoreActions, chosen) {
		out = append(out, ui.Option{Value: chosen, Label: chosen})
	}
	return out
}

// personOptions lists the people to filter by: the members, and the chosen person.
func (c *Console) personOptions(r *Request, store stores.Store, chosen string) ([]ui.Option, error) {
	members, err := c.Accounts.Members(r.Context(), r.Principal, store.ID)
	if err != nil {
		return nil, err
	}
	out := []ui.Option{{Value: "", Label: "Everybody"}}
	known := chosen == ""
	for _, m := range members {
		known = known || m.UserID.String() == chosen
		out = append(out, ui.Option{Value: m.UserID.String(), Label: nameOf(m.Person)})
	}
	if _, err := stoa.ParseID[stoa.UserID](chosen); err == nil && !known {
		out = append(out, ui.Option{Value: chosen, Label: "The chosen person, who is no member"})
	}
	return out, nil
}

// activityCSV sends all that the filters leave, as the API does.
func (c *Console) auditLogCSV(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ReadAudit)
	if err != nil {
		return err
	}
	filter, form := auditLogFilter(r.URL.Query())
	if len(form.Faults) > 0 {
		return stoa.Errorf(stoa.InvalidRequest, "The filters of this address are not valid. Set them on the page and download again.")
	}
	filter.Limit, filter.Cursor = page.MaxLimit, ""
	read := func(f audit.Filter) (audit.Page, error) {
		return authz.ReadAuditLog(r.Context(), c.Master, r.Principal, store.ID, f)
	}
	first, err := read(filter)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	web.ServeCSV(w, r.Request, c.Log, "audit-"+store.ID.String(), audit.ColumnNames,
		func(e audit.Entry) []string { return e.Columns(web.EscapeFormula) }, first.All(filter, read))
	return nil
}
