package console

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/webhooks"
)

func (c *Console) activityRoutes() []Route {
	read := scopeOf(authz.ReadEvents)
	return []Route{
		{Pattern: "GET /stores/{slug}/activity", RouteOptions: view(read), Handle: c.activity},
		{Pattern: "GET /stores/{slug}/activity/live", RouteOptions: stream(read), Handle: c.followActivity},
	}
}

func activityPath(s stores.Store) string { return "/stores/" + s.Slug + "/activity" }
func auditLogPath(s stores.Store) string { return activityPath(s) + "/audit" }

// activityView fills the page of what happens to a store.
type activityView struct {
	Form  ui.Form // the filter
	Store stores.Store
	Types []ui.Option
	Live  string // the address of the live part; "": not on this page of the list
	activityNow
}

// activityNow is the part of the page that is kept up to date.
type activityNow struct {
	Filtered bool
	Path     string
	Events   []activityRow
	pager
}

// activityRow is one event.
type activityRow struct {
	events.Event
	About string // what the type means
	Who   string // "": the platform
	Data  []eventDetail
}

const activityLimit = 50

func (c *Console) readActivity(ctx context.Context, r *Request, store stores.Store, kind string) (v activityNow, err error) {
	f := webhooks.EventFilter{Limit: activityLimit, Cursor: r.URL.Query().Get("cursor")}
	if kind != "" {
		f.Types = []string{kind}
	}
	v.Filtered, v.Path = kind != "", activityPath(store)
	list, err := c.Webhooks.Events(ctx, r.Principal, store.ID, f)
	if err != nil {
		return v, err
	}
	names, err := c.memberNames(&Request{Request: r.WithContext(ctx), Principal: r.Principal}, store)
	for _, e := range list.Events {
		row := activityRow{Event: e, Data: detailsOf(e.Data)}
		if known, ok := events.KindOf(e.Type); ok {
			row.About = eventWords(known)
		}
		if e.UserID != nil {
			row.Who = names[*e.UserID]
			if row.Who == "" {
				row.Who = "somebody who is no member"
			}
		}
		v.Events = append(v.Events, row)
	}
	v.pager = newPager(r, list.NextCursor)
	return v, err
}

// activity shows what has happened. The filters of the audit log, which was here, lead to it.
func (c *Console) activity(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ReadEvents)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	if slices.ContainsFunc(auditFilters, q.Has) {
		http.Redirect(w, r.Request, withQuery(auditLogPath(store), filterQuery(q)), http.StatusSeeOther)
		return nil
	}
	kind := q.Get("type")
	v := activityView{Store: store, Form: ui.Form{Values: typed(q)}, Types: deliveryTypes(false)}
	v.activityNow, err = c.readActivity(r.Context(), r, store, kind)
	switch {
	case stoa.CodeOf(err) == stoa.InvalidRequest:
		v.Form.Code = http.StatusUnprocessableEntity
		if _, known := events.KindOf(events.Type(kind)); kind != "" && !known {
			v.Form.Faults = map[string]string{"type": "There is no such type."}
		} else {
			v.Form.Fault = "This page of the list does not exist. Begin with the newest events."
		}
	case err != nil:
		return err
	case !q.Has("cursor"):
		v.Live = v.Path + "/live"
		if kind != "" {
			v.Live = withQuery(v.Live, url.Values{"type": {kind}})
		}
	}
	return c.render(w, r, v.Form.Status(), storeFrame(store, "activity", "Activity"), activityPage(v))
}

func (c *Console) followActivity(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ReadEvents)
	if err != nil {
		return err
	}
	return c.serveLive(w, r, nil, func(ctx context.Context) (templ.Component, bool, error) {
		now, err := c.readActivity(ctx, r, store, r.URL.Query().Get("type"))
		return activityPart(now), false, err
	})
}
