package httpapi

import (
	"encoding/json"
	"net/http"

	"github.com/stoahq/stoa/internal/console"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/storefront"
	"github.com/stoahq/stoa/internal/web"
)

// homeRoutes registers the home page of the platform and of a store, the API
// documentation and the assets of both.
func (a *api) homeRoutes() {
	public := routeOptions{timeout: requestTimeout, rate: rateAddress, scope: scopePublic, maxBody: noBody}
	docs := console.Docs(openAPIPath+".json", "/api/docs").ServeHTTP
	a.page("GET /{$}", routeOptions{timeout: requestTimeout, rate: rateStorefront, scope: scopePublic, maxBody: noBody}, a.home)
	a.page("GET /assets/", public, console.Assets().ServeHTTP)
	a.page("GET /api/docs", public, docs)
	a.page("GET /api/docs/", public, docs)
}

// home serves the platform's page at the platform's own address and a store's
// page at its hostname.
func (a *api) home(w http.ResponseWriter, r *http.Request) {
	if a.isPlatform(r.Host) {
		a.consolePage(console.Route{RouteOptions: console.RouteOptions{Kind: console.View, Scope: console.Optional}, Handle: a.console.Home})(w, r)
		return
	}
	s, err := a.Stores.StorefrontPage(r.Context(), r.Host, a, storedata.ListProducts{Limit: storePageProducts})
	setStaleHeader(w.Header(), s)
	if err != nil {
		a.errorPage(w, r, err)
		return
	}
	web.Serve(w, r, http.StatusOK, storefront.StorePage(newStorePage(s.Profile, s.Products.Products)))
}

// storePageProducts is how many products a store's page shows.
const storePageProducts = 24

func newStorePage(p storedata.Profile, products []storedata.Product) storefront.StoreView {
	v := storefront.StoreView{
		Name: p.Name, Description: p.Description, LogoURL: p.LogoURL, Currency: p.Currency, Locale: p.Locale,
		PrimaryColor: primaryColor(p.Theme), ContactEmail: p.ContactEmail, Products: make([]storefront.ProductView, len(products)),
	}
	for i, product := range products {
		view := storefront.ProductView{Name: product.Name, Description: product.Description, SoldOut: !product.InStock}
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

// primaryColor returns the theme's primary colour without validation:
// storefront.StorePage ignores an invalid one.
func primaryColor(theme storedata.JSON) string {
	var t struct {
		PrimaryColor string `json:"primaryColor"`
	}
	_ = json.Unmarshal(theme, &t) // a theme of another shape has no such colour
	return t.PrimaryColor
}
