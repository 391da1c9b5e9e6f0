package console

import (
	"net/http"

	"github.com/stoahq/stoa"
)

// homeRoutes: the platform's own home page is served by httpapi at "/", because a
// store's page has the same path.
func (c *Console) homeRoutes() []Route { return nil }

// Home serves the platform's home page: what the platform is for those who are signed
// out, their stores for those who are signed in.
func (c *Console) Home(w http.ResponseWriter, r *Request) error {
	if r.SignedIn() {
		http.Redirect(w, r.Request, "/stores", http.StatusSeeOther)
		return nil
	}
	f := publicFrame("Every store, its own database")
	return c.render(w, r, http.StatusOK, f, landing(LandingView{BaseURL: c.BaseURL, Version: stoa.Version, Development: c.Development}))
}
