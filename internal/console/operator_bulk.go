package console

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/stores"
)

func (c *Console) operatorBulkRoutes() []Route {
	return []Route{
		{Pattern: "GET /operator/bulk", RouteOptions: RouteOptions{Kind: View, Scope: Operator, List: "store"}, Handle: c.confirmBulk},
		{Pattern: "POST /operator/bulk", RouteOptions: form(Operator), Handle: c.beginBulk},
		{Pattern: "GET /operator/bulk/{id}", RouteOptions: view(Operator), Handle: c.bulkAction},
		{Pattern: "GET /operator/bulk/{id}/live", RouteOptions: stream(Operator), Handle: c.followBulk},
	}
}

// bulkView fills the page that asks before an action on many stores.
type bulkView struct {
	Form    ui.Form
	Kind    fleet.BulkKind
	Stores  []stores.Store // listed
	Filter  stores.ListFilter
	All     bool // every store of the filter
	Confirm string
}

// bulkNames is the number of stores of a filter that the page names.
const bulkNames = 20

func (c *Console) confirmBulk(w http.ResponseWriter, r *Request) error {
	return c.askBulk(w, r, r.URL.Query(), ui.Form{})
}

// askBulk shows what would be done. Without stores it says so.
func (c *Console) askBulk(w http.ResponseWriter, r *Request, values url.Values, form ui.Form) error {
	kind, sel, err := readBulk(values)
	if err != nil {
		return err
	}
	v := bulkView{Form: form, Kind: kind, All: sel.Filter != nil}
	if sel.Filter != nil {
		v.Filter = *sel.Filter
		first := v.Filter
		first.Limit = bulkNames
		page, err := c.Stores.ListForOperator(r.Context(), r.Principal, first)
		if err != nil {
			return err
		}
		v.Stores = page.Stores
	} else if v.Stores, err = c.Stores.NamesForOperator(r.Context(), r.Principal, sel.Stores); err != nil {
		return err
	}
	v.Confirm = confirmWords(kind, sel)
	return c.render(w, r, form.Status(), operatorFrame("stores", bulkWords(kind)), operatorBulkPage(v))
}

// confirmWords is what an operator types before stores are suspended.
func confirmWords(kind fleet.BulkKind, sel fleet.Selection) string {
	if sel.Filter != nil {
		return string(kind) + " all"
	}
	return string(kind) + " " + strconv.Itoa(len(sel.Stores))
}

// readBulk reads an action and its stores from an address or a form.
func readBulk(values url.Values) (fleet.BulkKind, fleet.Selection, error) {
	kind := fleet.BulkKind(values.Get("action"))
	if kind != fleet.BulkSuspend && kind != fleet.BulkResume && kind != fleet.BulkMigrate {
		return "", fleet.Selection{}, stoa.Errorf(stoa.InvalidRequest, "Choose what to do with the stores: suspend, resume or migrate.")
	}
	if values.Get("all") != "" {
		f := readFilter(values)
		return kind, fleet.Selection{Filter: &f}, nil
	}
	texts := values["store"]
	if len(texts) > fleet.MaxSelected {
		return "", fleet.Selection{}, stoa.Errorf(stoa.InvalidRequest, "Select at most %d stores, or all that a filter finds.", fleet.MaxSelected)
	}
	var sel fleet.Selection
	for _, text := range texts {
		id, err := stoa.ParseID[stoa.StoreID](text)
		if err != nil {
			return "", fleet.Selection{}, stoa.Errorf(stoa.InvalidRequest, "A selected store has no valid id. Select the stores again.")
		}
		sel.Stores = append(sel.Stores, id)
	}
	return kind, sel, nil
}

func (c *Console) beginBulk(w http.ResponseWriter, r *Request) error {
	kind, sel, err := readBulk(r.PostForm)
	if err != nil {
		return err
	}
	if want := confirmWords(kind, sel); kind == fleet.BulkSuspend && r.PostForm.Get("confirm") != want {
		var faults stoa.Invalid
		faults.Add("confirm", "type %q", want)
		err = faults.Err()
	}
	var a fleet.BulkAction
	if err == nil {
		a, err = c.Bulk.Begin(r.Context(), r.Principal, kind, sel)
	}
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.askBulk(w, r, r.PostForm, form)
	}
	return redirect(w, r, "/operator/bulk/"+a.ID.String(), "")
}

func (c *Console) bulkAction(w http.ResponseWriter, r *Request) error {
	a, err := c.readBulkAction(r.Context(), r)
	if err != nil {
		return err
	}
	return c.render(w, r, http.StatusOK, operatorFrame("stores", bulkWords(a.Kind)), bulkActionPage(a))
}

func (c *Console) readBulkAction(ctx context.Context, r *Request) (fleet.BulkAction, error) {
	id, err := stoa.ParseID[stoa.BulkActionID](r.PathValue("id"))
	if err != nil {
		return fleet.BulkAction{}, notFound()
	}
	return c.Bulk.Get(ctx, r.Principal, id)
}

func (c *Console) followBulk(w http.ResponseWriter, r *Request) error {
	return c.serveLive(w, r, nil, func(ctx context.Context) (templ.Component, bool, error) {
		a, err := c.readBulkAction(ctx, r)
		return bulkPart(a), a.Ended(), err
	})
}
