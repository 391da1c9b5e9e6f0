package console

import (
	"net/http"

	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/stores"
)

func (c *Console) storeListRoutes() []Route {
	return []Route{{Pattern: "GET /stores", RouteOptions: view(Person), Handle: c.storeList}}
}

// storeRow is one store of the list.
type storeRow struct {
	Name, URL string
	State     ui.State
	Hostname  string
	Role      string
	Database  string
	Credits   string
	Store     stores.Store
}

type storeListView struct {
	Rows []storeRow
	pager
	First      bool // the first page
	Unverified string
}

const storesPerPage = 50

func (c *Console) storeList(w http.ResponseWriter, r *Request) error {
	cursor := r.URL.Query().Get("cursor")
	page, err := c.Stores.List(r.Context(), r.Principal, storesPerPage, cursor)
	if err != nil {
		return err
	}
	v := storeListView{First: cursor == ""}
	for _, s := range page.Stores {
		v.Rows = append(v.Rows, newStoreRow(s))
	}
	v.pager = newPager(r, page.NextCursor)
	if !r.User.EmailVerified {
		v.Unverified = r.User.Email
	}
	return c.render(w, r, http.StatusOK, publicFrame("Stores"), storeListPage(v))
}

func newStoreRow(s stores.Store) storeRow {
	row := storeRow{Name: s.Name, URL: "/stores/" + s.Slug, State: storeState(s), Role: string(s.Role), Hostname: primaryHostname(s), Store: s, Database: "none"}
	if s.Database != nil {
		row.Database = databaseWords(s)
	}
	if s.Credits != nil {
		row.Credits = s.Credits.Available().String()
	}
	return row
}

// primaryHostname returns the name at which a store answers first, or "".
func primaryHostname(s stores.Store) string {
	name := ""
	for _, h := range s.Hostnames {
		if h.VerifiedAt == nil && h.Custom {
			continue
		}
		if h.Primary {
			return h.Hostname
		}
		name = h.Hostname
	}
	return name
}
