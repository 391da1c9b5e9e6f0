package stores

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// VisitLimiter counts requests to storefronts. LimitVisit fails when the store
// has had too many.
type VisitLimiter interface {
	LimitVisit(ctx context.Context, store stoa.StoreID) error
}

// Storefront contains what a store's hostname serves. Each method sets the fields that
// its name describes.
type Storefront struct {
	Profile  storedata.Profile
	Products storedata.ProductPage
	// StaleFor is the age of the cached hostname when the master database gave no
	// answer, else 0. It is also set when the method fails.
	StaleFor time.Duration
}

// StorefrontProfile reads the profile of the store at host, a Host header. It
// fails as Resolve, limiter and tenantdb.Manager.Acquire do.
func (r *Registry) StorefrontProfile(ctx context.Context, host string, limiter VisitLimiter) (Storefront, error) {
	v, err := r.visit(ctx, host, limiter, (*visit).readProfile)
	return v.Storefront, err
}

// StorefrontProducts reads a page of published products of the store at host. It fails as
// StorefrontProfile and storedata.Products do.
func (r *Registry) StorefrontProducts(ctx context.Context, host string, limiter VisitLimiter, list storedata.ListProducts) (Storefront, error) {
	v, err := r.visit(ctx, host, limiter, func(v *visit, ctx context.Context) error { return v.readProducts(ctx, list) })
	return v.Storefront, err
}

// StorefrontPage reads the profile and a page of published products of the store
// at host. It fails as StorefrontProducts does.
func (r *Registry) StorefrontPage(ctx context.Context, host string, limiter VisitLimiter, list storedata.ListProducts) (Storefront, error) {
	v, err := r.visit(ctx, host, limiter, func(v *visit, ctx context.Context) error {
		if err := v.readProfile(ctx); err != nil {
			return err
		}
		return v.readProducts(ctx, list)
	})
	return v.Storefront, err
}

// visit is one request to a storefront while it reads the store's database.
type visit struct {
	Storefront
	store stoa.StoreID
	lease tenantdb.Lease
}

// visit resolves host, counts the request, leases the store's database and calls read
// with it. The master database is read only when the hostname is not cached.
func (r *Registry) visit(ctx context.Context, host string, limiter VisitLimiter, read func(*visit, context.Context) error) (visit, error) {
	begun := time.Now()
	found, err := r.Resolve(ctx, host)
	v := visit{Storefront: Storefront{StaleFor: found.StaleFor}, store: found.StoreID}
	if err != nil {
		return v, err
	}
	if err := limiter.LimitVisit(ctx, v.store); err != nil {
		return v, err
	}
	err = r.readVisit(ctx, &v, read)
	if r.traffic != nil {
		r.traffic.Count(v.store, time.Since(begun), ctx.Err() == nil && isPlatformFault(err))
	}
	return v, err
}

func (r *Registry) readVisit(ctx context.Context, v *visit, read func(*visit, context.Context) error) (err error) {
	if v.lease, err = r.tenants.Acquire(ctx, v.store); err != nil {
		return err
	}
	defer v.lease.Release()
	return read(v, ctx)
}

// isPlatformFault reports whether a request failed through no fault of the shopper.
func isPlatformFault(err error) bool {
	if err == nil {
		return false
	}
	switch stoa.CodeOf(err) { //nolint:exhaustive // all others are faults of the store's database or of the platform
	case stoa.InvalidRequest, stoa.NotFound:
		return false
	}
	return true
}

func (v *visit) readProfile(ctx context.Context) (err error) {
	v.Profile, err = storedata.ReadProfile(ctx, v.lease.DB, v.store)
	return err
}

func (v *visit) readProducts(ctx context.Context, list storedata.ListProducts) (err error) {
	v.Products, err = storedata.Products(ctx, v.lease.DB, list)
	return err
}
