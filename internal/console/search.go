package console

import (
	"net/http"
	"strings"

	"github.com/stoahq/stoa/internal/console/ui"
)

func (c *Console) searchRoutes() []Route {
	return []Route{{Pattern: "GET /search", RouteOptions: view(Person), Handle: c.search}}
}

// searchHit is a place that a search leads to.
type searchHit struct {
	Label, Detail, URL, Icon string
}

type searchView struct {
	Query string
	Hits  []searchHit
}

const searchStores = 8

// search lists the stores, pages and actions whose name contains the query. The
// command palette shows the same list.
func (c *Console) search(w http.ResponseWriter, r *Request) error {
	query := strings.TrimSpace(r.URL.Query().Get("q"))
	found, err := c.Stores.Search(r.Context(), r.Principal, query, searchStores)
	if err != nil {
		return err
	}
	v := searchView{Query: query}
	for _, s := range found {
		v.Hits = append(v.Hits, searchHit{Label: s.Name, Detail: s.Slug, URL: "/stores/" + s.Slug, Icon: "box"})
	}
	sections := []ui.Frame{accountFrame("", "")}
	if len(found) == 1 {
		sections = append(sections, storeFrame(found[0], "", ""))
	}
	if r.User.IsOperator() {
		sections = append(sections, operatorFrame("", ""))
	}
	v.Hits = append(v.Hits, actionHits(query)...)
	for _, section := range sections {
		for _, item := range section.Nav {
			if !item.Coming && contains(section.NavLabel+" "+item.Label, query) {
				v.Hits = append(v.Hits, searchHit{Label: item.Label, Detail: section.NavLabel, URL: item.URL, Icon: item.Icon})
			}
		}
	}
	return c.render(w, r, http.StatusOK, formFrame("Search"), searchPage(v))
}

func actionHits(query string) (hits []searchHit) {
	for _, h := range []searchHit{
		{Label: "Create a store", Detail: "Action", URL: "/stores/new", Icon: "plus"},
		{Label: "All your stores", Detail: "Page", URL: "/stores", Icon: "box"},
		{Label: "API documentation", Detail: "Page", URL: "/api/docs", Icon: "info"},
	} {
		if contains(h.Label, query) {
			hits = append(hits, h)
		}
	}
	return hits
}

func contains(text, query string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(query))
}
