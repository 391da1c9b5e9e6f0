package httpapi

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/shop"
	"github.com/stoahq/stoa/tenantdb"
	"github.com/stoahq/stoa/web"
)

// pageRoutes serve people: the front page of the platform or of a store, the
// API's documentation, and what both are drawn with.
func (a *api) pageRoutes() {
	a.mux.HandleFunc("GET /{$}", a.home)
	a.mux.Handle("GET /assets/", web.Assets())
	a.mux.Handle("GET /api/docs", web.Docs("/api/openapi.json", "/api/docs"))
	a.mux.Handle("GET /api/docs/", web.Docs("/api/openapi.json", "/api/docs"))
}

// home is the platform's page at its own address and a store's page at its
// hostname.
func (a *api) home(w http.ResponseWriter, r *http.Request) {
	if a.isPlatform(r.Host) {
		web.Serve(w, r, http.StatusOK, web.LandingPage(web.LandingView{BaseURL: a.BaseURL, Version: stoa.Version, Development: a.Development}))
		return
	}
	site, lease, err := a.visit(r.Context(), r.Host)
	if err != nil {
		a.errorPage(w, r, err)
		return
	}
	view, err := readStorePage(r.Context(), site.StoreID, lease)
	if err != nil {
		a.errorPage(w, r, err)
		return
	}
	web.Serve(w, r, http.StatusOK, web.StorePage(view))
}

// readStorePage ends the lease: the database is not kept while the client
// reads.
func readStorePage(ctx context.Context, store stoa.StoreID, lease tenantdb.Lease) (web.StoreView, error) {
	defer lease.Release()
	profile, err := shop.ReadProfile(ctx, lease.DB, store)
	if err != nil {
		return web.StoreView{}, err
	}
	products, err := shop.Products(ctx, lease.DB, shop.ListProducts{Limit: 24})
	if err != nil {
		return web.StoreView{}, err
	}
	return newStorePage(profile, products.Products), nil
}

func (a *api) errorPage(w http.ResponseWriter, r *http.Request, err error) {
	p := a.problem(r.Context(), err)
	for key, values := range p.header {
		w.Header()[key] = values
	}
	web.Serve(w, r, p.Status, web.ErrorPage(web.ErrorView{Status: p.Status, Title: p.Title, Detail: p.Detail, RequestID: p.RequestID}))
}

func newStorePage(p shop.Profile, products []shop.Product) web.StoreView {
	v := web.StoreView{
		Name: p.Name, Description: p.Description, LogoURL: p.LogoURL, Currency: p.Currency, Locale: p.Locale,
		PrimaryColor: primaryColor(p.Theme), ContactEmail: p.ContactEmail, Products: make([]web.ProductView, len(products)),
	}
	for i, product := range products {
		view := web.ProductView{Name: product.Name, Description: product.Description, SoldOut: !product.InStock}
		if product.Price != nil {
			view.Price, view.Currency = product.Price.Value, product.Price.Currency
		}
		if product.Image != nil {
			view.ImageURL, view.ImageAlt = product.Image.URL, product.Image.Alt
		}
		v.Products[i] = view
	}
	return v
}

// primaryColor reads the one setting of a theme that this page follows; the
// page itself judges whether it is a colour.
func primaryColor(theme shop.JSON) string {
	var t struct {
		PrimaryColor string `json:"primaryColor"`
	}
	_ = json.Unmarshal(theme, &t) // a theme of another shape has no such colour
	return t.PrimaryColor
}
