package console

import (
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/web"
)

func (c *Console) operatorAuditRoutes() []Route {
	return []Route{
		{Pattern: "GET /operator/audit", RouteOptions: view(Operator), Handle: c.operatorAudit},
		{Pattern: "GET /operator/audit.csv", RouteOptions: download(Operator), Handle: c.operatorAuditCSV},
	}
}

// operatorAuditView fills the platform's audit log.
type operatorAuditView struct {
	Form    ui.Form // the filter
	Entries []audit.Entry
	pager
	CSV string
}

// platformFilter reads the filter of the platform's audit log from the address.
func platformFilter(q url.Values) (audit.Filter, error) {
	f := audit.Filter{Action: q.Get("action"), Outcome: q.Get("outcome"), Cursor: q.Get("cursor")}
	var faults stoa.Invalid
	var err error
	if user := q.Get("user"); user != "" {
		if f.UserID, err = stoa.ParseID[stoa.UserID](user); err != nil {
			faults.Add("user", "must be a user's id")
		}
	}
	day := func(name string, days int) *time.Time {
		if q.Get(name) == "" {
			return nil
		}
		at, err := time.Parse(time.DateOnly, q.Get(name))
		if err != nil {
			faults.Add(name, "must be a date")
			return nil
		}
		at = at.AddDate(0, 0, days)
		return &at
	}
	f.From, f.To = day("from", 0), day("to", 1)
	return f, faults.Err()
}

func (c *Console) operatorAudit(w http.ResponseWriter, r *Request) error {
	q := r.URL.Query()
	v := operatorAuditView{Form: ui.Form{Values: q, Faults: map[string]string{}}}
	f, err := platformFilter(q)
	status := http.StatusOK
	if err == nil {
		var found audit.Page
		found, err = authz.ReadPlatformLog(r.Context(), c.Master, r.Principal, f)
		v.Entries, v.pager = found.Entries, newPager(r, found.NextCursor)
	}
	if err != nil {
		r.PostForm = q
		if v.Form, err = refused(r, err); err != nil {
			return err
		}
		status = v.Form.Status()
	}
	q.Del("cursor")
	v.CSV = "/operator/audit.csv?" + q.Encode()
	return c.render(w, r, status, operatorFrame("audit", "Audit log"), operatorAuditPage(v))
}

func (c *Console) operatorAuditCSV(w http.ResponseWriter, r *Request) error {
	f, err := platformFilter(r.URL.Query())
	if err != nil {
		return err
	}
	f.Limit, f.Cursor = page.MaxLimit, ""
	read := func(f audit.Filter) (audit.Page, error) {
		return authz.ReadPlatformLog(r.Context(), c.Master, r.Principal, f)
	}
	first, err := read(f)
	if err != nil {
		return err
	}
	web.ServeCSV(w, r.Request, c.Log, "audit", audit.ColumnNames, func(e audit.Entry) []string { return e.Columns(web.EscapeFormula) }, first.All(f, read))
	return nil
}

// auditActionOptions are the choices of the filter by action.
func auditActionOptions() []ui.Option {
	out := []ui.Option{{Value: "", Label: "All actions"}}
	for action, words := range actions {
		out = append(out, ui.Option{Value: action, Label: words})
	}
	slices.SortFunc(out[1:], func(a, b ui.Option) int {
		if a.Label < b.Label {
			return -1
		}
		return 1
	})
	return out
}
