package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa/hostnames"
	"github.com/stoahq/stoa/limits"
	"github.com/stoahq/stoa/shop"
	"github.com/stoahq/stoa/tenantdb"
)

// The store front: host → store → its own database → shop. Nothing here
// reads the master but the resolver, and that only when its cache is cold.
func (a *api) storefrontRoutes() {
	tags := []string{"Store front"}
	errors := []int{404, 409, 503}
	route(a, huma.Operation{Method: http.MethodGet, Path: "/api/storefront/store", Tags: tags,
		Summary: "The store at this hostname", Errors: errors}, a.storefrontStore)
	route(a, huma.Operation{Method: http.MethodGet, Path: "/api/storefront/products", Tags: tags,
		Summary: "Its published products, newest first", Errors: append(errors, 422)}, a.storefrontProducts)
}

// frontView is the part of a profile that is meant for shoppers; settings
// are the merchant's own.
type frontView struct {
	ID           string    `json:"id" format:"uuid"`
	Name         string    `json:"name"`
	Slug         string    `json:"slug"`
	Description  string    `json:"description"`
	ContactEmail string    `json:"contactEmail"`
	ContactPhone string    `json:"contactPhone"`
	Website      string    `json:"website"`
	AddressLine1 string    `json:"addressLine1"`
	AddressLine2 string    `json:"addressLine2"`
	City         string    `json:"city"`
	Region       string    `json:"region"`
	PostalCode   string    `json:"postalCode"`
	Country      string    `json:"country"`
	Currency     string    `json:"currency"`
	Timezone     string    `json:"timezone"`
	Locale       string    `json:"locale"`
	LogoURL      string    `json:"logoUrl"`
	Theme        shop.JSON `json:"theme"`
}

func newFrontView(p shop.Profile) frontView {
	return frontView{p.ID.String(), p.Name, p.Slug, p.Description, p.ContactEmail, p.ContactPhone, p.Website, p.AddressLine1, p.AddressLine2,
		p.City, p.Region, p.PostalCode, p.Country, p.Currency, p.Timezone, p.Locale, p.LogoURL, p.Theme}
}

// staleHeader has how many seconds ago the platform last read where a hostname
// leads, when its master database could not be asked again.
const staleHeader = "Stoa-Stale-Seconds"

// visit leases the database of the store at this request's hostname.
func (a *api) visit(ctx context.Context, host string) (hostnames.Resolution, tenantdb.Lease, error) {
	site, err := a.Stores.Resolve(ctx, host)
	if site.StaleFor > 0 {
		requestOf(ctx).header.Set(staleHeader, strconv.Itoa(int(site.StaleFor.Seconds())))
	}
	if err == nil {
		err = a.take(ctx, limits.ID("store-front", site.StoreID), a.Rates.front())
	}
	if err != nil {
		return site, tenantdb.Lease{}, err
	}
	lease, err := a.Tenants.Acquire(ctx, site.StoreID)
	return site, lease, err
}

func (a *api) storefrontStore(ctx context.Context, _ *struct{}) (*struct{ Body frontView }, error) {
	site, lease, err := a.visit(ctx, requestOf(ctx).host)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	profile, err := shop.ReadProfile(ctx, lease.DB, site.StoreID)
	if err != nil {
		return nil, err
	}
	return &struct{ Body frontView }{newFrontView(profile)}, nil
}

func (a *api) storefrontProducts(ctx context.Context, in *PageInput) (*struct{ Body productsView }, error) {
	_, lease, err := a.visit(ctx, requestOf(ctx).host)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	page, err := shop.Products(ctx, lease.DB, shop.ListProducts{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, err
	}
	return &struct{ Body productsView }{productsView{page.Products, page.NextCursor}}, nil
}

type productsView struct {
	Data       []shop.Product `json:"data"`
	NextCursor *string        `json:"nextCursor"`
}
