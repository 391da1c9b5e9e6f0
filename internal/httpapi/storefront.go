package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/stores"
)

// storefrontRoutes registers the read API of a store. The request's Host header
// names the store.
func (a *api) storefrontRoutes() {
	tags := []string{"Store front"}
	errors := []int{404, 409, 503}
	route(a, routeOptions{timeout: requestTimeout, rate: rateStorefront, scope: scopePublic, maxBody: noBody},
		huma.Operation{OperationID: "storefront.store", Method: http.MethodGet, Path: "/api/storefront/store", Tags: tags,
			Summary: "The store at this hostname", Description: "What the store shows its shoppers.", Errors: errors}, a.storefrontStore)
	route(a, routeOptions{timeout: requestTimeout, rate: rateStorefront, scope: scopePublic, maxBody: noBody},
		huma.Operation{OperationID: "storefront.products", Method: http.MethodGet, Path: "/api/storefront/products", Tags: tags,
			Summary: "Its published products, newest first", Description: "Of the store at this hostname.", Errors: append(errors, 422)}, a.storefrontProducts)
}

// frontView is the public part of a profile.
type frontView struct {
	ID           string         `json:"id" format:"uuid"`
	Name         string         `json:"name"`
	Slug         string         `json:"slug"`
	Description  string         `json:"description"`
	ContactEmail string         `json:"contactEmail"`
	ContactPhone string         `json:"contactPhone"`
	Website      string         `json:"website"`
	AddressLine1 string         `json:"addressLine1"`
	AddressLine2 string         `json:"addressLine2"`
	City         string         `json:"city"`
	Region       string         `json:"region"`
	PostalCode   string         `json:"postalCode"`
	Country      string         `json:"country"`
	Currency     string         `json:"currency"`
	Timezone     string         `json:"timezone"`
	Locale       string         `json:"locale"`
	LogoURL      string         `json:"logoUrl"`
	Theme        storedata.JSON `json:"theme"`
}

func newFrontView(p storedata.Profile) frontView {
	return frontView{
		ID: p.ID.String(), Name: p.Name, Slug: p.Slug, Description: p.Description,
		ContactEmail: p.ContactEmail, ContactPhone: p.ContactPhone, Website: p.Website,
		AddressLine1: p.AddressLine1, AddressLine2: p.AddressLine2, City: p.City, Region: p.Region, PostalCode: p.PostalCode, Country: p.Country,
		Currency: p.Currency, Timezone: p.Timezone, Locale: p.Locale, LogoURL: p.LogoURL, Theme: p.Theme,
	}
}

// staleHeader contains the age of the cached hostname in seconds. It is sent when the
// master database did not answer.
const staleHeader = "Stoa-Stale-Seconds"

func setStaleHeader(h http.Header, s stores.Storefront) {
	if s.StaleFor > 0 {
		h.Set(staleHeader, strconv.Itoa(int(s.StaleFor.Seconds())))
	}
}

func (a *api) storefrontStore(ctx context.Context, _ *struct{}) (*struct{ Body frontView }, error) {
	req := requestOf(ctx)
	s, err := a.Stores.StorefrontProfile(ctx, req.host, a)
	setStaleHeader(req.header, s)
	if err != nil {
		return nil, err
	}
	return &struct{ Body frontView }{newFrontView(s.Profile)}, nil
}

func (a *api) storefrontProducts(ctx context.Context, in *PageInput) (*struct{ Body productsView }, error) {
	req := requestOf(ctx)
	s, err := a.Stores.StorefrontProducts(ctx, req.host, a, storedata.ListProducts{Limit: in.Limit, Cursor: in.Cursor})
	setStaleHeader(req.header, s)
	if err != nil {
		return nil, err
	}
	return &struct{ Body productsView }{productsView{Data: s.Products.Products, NextCursor: s.Products.NextCursor}}, nil
}

type productsView struct {
	Data       []storedata.Product `json:"data"`
	NextCursor *string             `json:"nextCursor"`
}
