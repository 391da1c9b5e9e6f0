package console

import (
	"io"
	"net/http"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/web"
)

func (c *Console) exportRoutes() []Route {
	return []Route{
		{Pattern: "GET /account/export", RouteOptions: view(Person), Handle: c.export},
		{Pattern: "GET /account/export/download", RouteOptions: download(Person), Handle: c.downloadExport},
	}
}

func (c *Console) export(w http.ResponseWriter, r *Request) error {
	return c.render(w, r, http.StatusOK, accountFrame("export", "Your data"), exportPage())
}

func (c *Console) downloadExport(w http.ResponseWriter, r *Request) error {
	export, err := c.Accounts.Export(r.Context(), r.Principal)
	if stoa.CodeOf(err) == stoa.ReauthenticationRequired {
		// A download leaves the browser on the page before it: that page is to be this one.
		http.Redirect(w, r.Request, "/reauthenticate?next=%2Faccount%2Fexport", http.StatusSeeOther)
		return nil
	}
	if err != nil {
		return err
	}
	_, err = web.Download(w, export.Name(), "application/json", func(out io.Writer) error { return export.Write(r.Context(), out) })
	if err != nil {
		c.Log.ErrorContext(r.Context(), "export of an account ended early", "err", err)
		panic(http.ErrAbortHandler) // the browser must not take a part for the whole
	}
	return nil
}
