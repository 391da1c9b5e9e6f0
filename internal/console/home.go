package console

import (
	"net/http"

	"github.com/stoahq/stoa"
)

// landingView fills the platform's home page.
type landingView struct {
	BaseURL     string // of the platform, such as http://localhost:3000
	Version     string
	Development bool // shows the quick start
}

// Home serves the platform's home page: what the platform is for those who are signed
// out, their stores for those who are signed in. A store's page has the same path, so that
// httpapi serves both.
func (c *Console) Home(w http.ResponseWriter, r *Request) error {
	if r.SignedIn() {
		http.Redirect(w, r.Request, "/stores", http.StatusSeeOther)
		return nil
	}
	f := publicFrame("Every store, its own database")
	return c.render(w, r, http.StatusOK, f, landing(landingView{BaseURL: c.BaseURL, Version: stoa.Version, Development: c.Development}))
}
