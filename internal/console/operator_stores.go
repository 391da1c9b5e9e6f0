package console

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

func (c *Console) operatorStoreListRoutes() []Route {
	return []Route{{Pattern: "GET /operator/stores", RouteOptions: view(Operator), Handle: c.operatorStoreList}}
}

// operatorStoreListView fills the list of all stores.
type operatorStoreListView struct {
	Form         ui.Form
	Filter       stores.ListFilter
	Rows         []storeRow
	Expected     tenantdb.Schema
	Partial      bool
	Newer, Older string
}

const operatorStoresPerPage = 50

func (c *Console) operatorStoreList(w http.ResponseWriter, r *Request) error {
	query := r.URL.Query()
	filter := readFilter(query)
	filter.Limit, filter.Cursor, filter.Newer = operatorStoresPerPage, query.Get("cursor"), query.Get("to") == "newer"
	v := operatorStoreListView{Filter: filter, Form: ui.Form{Values: query}, Expected: c.Tenants.Expected()}
	page, err := c.Stores.ListForOperator(r.Context(), r.Principal, filter)
	var known *stoa.Error
	switch {
	case errors.As(err, &known) && known.Code == stoa.InvalidRequest:
		v.Form.Code, v.Form.Fault = http.StatusUnprocessableEntity, faultsInWords(known)
	case err != nil:
		return err
	}
	v.Partial = page.Partial
	for _, s := range page.Stores {
		v.Rows = append(v.Rows, newStoreRow(s))
	}
	v.Newer, v.Older = v.pageURL(page.Newer, "newer"), v.pageURL(page.Older, "")
	return c.render(w, r, v.Form.Status(), operatorFrame("stores", "Stores"), operatorStoreListPage(v))
}

// faultsInWords says in one text what is wrong with the fields of an address.
func faultsInWords(err *stoa.Error) string {
	text := ""
	for _, f := range err.Fields {
		text += sentence(f.Field+" "+f.Message) + " "
	}
	if text == "" {
		return err.Message
	}
	return text
}

// readFilter reads the filter of a list from an address or a form.
func readFilter(q url.Values) stores.ListFilter {
	schema, _ := strconv.ParseInt(q.Get("schema"), 10, 64) // no number: all versions
	return stores.ListFilter{
		Search: q.Get("q"), Status: stores.Status(q.Get("status")), Engine: credential.EngineName(q.Get("engine")), Health: stores.Health(q.Get("health")),
		Schema: max(schema, 0), Behind: q.Get("behind") != "", Server: q.Get("server"), Order: stores.ListOrder(q.Get("sort")),
	}
}

// fleetFilterValues is the inverse of readFilter. It leaves out empty fields.
func fleetFilterValues(f stores.ListFilter) url.Values {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("q", f.Search)
	set("status", string(f.Status))
	set("engine", string(f.Engine))
	set("health", string(f.Health))
	if f.Schema > 0 {
		q.Set("schema", strconv.FormatInt(f.Schema, 10))
	}
	if f.Behind {
		q.Set("behind", "on")
	}
	set("server", f.Server)
	set("sort", string(f.Order))
	return q
}

// filtered reports whether the list shows a part of the stores.
func (v operatorStoreListView) filtered() bool {
	f := v.Filter
	f.Order = ""
	return len(fleetFilterValues(f)) > 0
}

func (v operatorStoreListView) pageURL(cursor *string, to string) string {
	if cursor == nil {
		return ""
	}
	q := fleetFilterValues(v.Filter)
	q.Set("cursor", *cursor)
	if to != "" {
		q.Set("to", to)
	}
	return "/operator/stores?" + q.Encode()
}

func (v operatorStoreListView) sortURL(order stores.ListOrder) string {
	f := v.Filter
	f.Order = order
	return "/operator/stores?" + fleetFilterValues(f).Encode()
}

// behind reports whether a store's schema is older than this release's.
func (v operatorStoreListView) behind(s stores.Store) bool {
	return s.Database != nil && (s.Status == stores.Active || s.Status == stores.Suspended) &&
		isBehind(tenantdb.Schema{Version: s.Database.SchemaVersion, Own: s.Database.OwnVersion}, v.Expected)
}

var statusOptions = []ui.Option{
	{Value: "", Label: "Any state"}, {Value: "active", Label: "Active"}, {Value: "provisioning", Label: "Setting up"},
	{Value: "pending_database", Label: "No database yet"}, {Value: "suspended", Label: "Suspended"}, {Value: "deleting", Label: "Deleting"},
	{Value: "deleted", Label: "Deleted"},
}

var healthOptions = []ui.Option{
	{Value: "", Label: "Any health"}, {Value: "unreachable", Label: "Database unusable"}, {Value: "failing", Label: "Failing requests"},
	{Value: "slow", Label: "Slow"}, {Value: "ok", Label: "Database usable"}, {Value: "unknown", Label: "Not tried yet"},
}

var engineOptions = func() []ui.Option {
	options := []ui.Option{{Value: "", Label: "Any engine"}}
	for _, engine := range credential.Engines {
		options = append(options, ui.Option{Value: string(engine), Label: engine.Title()})
	}
	return options
}()

// serverName names the server of a store's database, as the filter does.
func serverName(s stores.Store) string {
	if s.Database == nil {
		return ""
	}
	return stores.ServerCount{Host: s.Database.Host, Port: s.Database.Port}.Name()
}

// filterFields returns the fields of a filter that are not empty, in the order of their
// names.
func filterFields(f stores.ListFilter) (fields []ui.Option) {
	values := fleetFilterValues(f)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		fields = append(fields, ui.Option{Value: values.Get(name), Label: name})
	}
	return fields
}
