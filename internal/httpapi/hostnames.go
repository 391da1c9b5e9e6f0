package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/hostnames"
)

func (a *api) hostnameRoutes() {
	tags := []string{"Stores"}
	const path = "/api/stores/{id}/hostnames"
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadStore), maxBody: noBody},
		huma.Operation{OperationID: "hostnames.list", Method: http.MethodGet, Path: path, Tags: tags,
			Summary: "The store's hostnames", Description: "The primary one first, those not proven last. There are few: the list has no pages.",
			Errors: []int{401, 404}}, a.listHostnames)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ManageHostnames), maxBody: maxJSON, key: keyKept},
		huma.Operation{OperationID: "hostnames.create", Method: http.MethodPost, Path: path, Tags: tags, DefaultStatus: http.StatusCreated,
			Summary: "Add a hostname of your own",
			Description: "The answer names the TXT record that proves that the name is yours, and the address that the name should lead to. Put both into " +
				"your DNS within a week, then verify. Sent again it gives the same record (200) and another week.",
			Responses: map[string]*huma.Response{"200": {Description: "It was there already"}},
			Errors:    []int{400, 401, 403, 404, 413, 422, 503}}, a.claimHostname)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ManageHostnames), maxBody: noBody},
		huma.Operation{OperationID: "hostnames.verify", Method: http.MethodPost, Path: path + "/{hostname}/verify", Tags: tags,
			Summary: "Look for the hostname's record",
			Description: "When it is there the store answers at the hostname at once: `verified` is true. When it is not, that is a result and no problem: " +
				"200 with `verified: false` and the reason in `verification.lastError`. Of several stores that claim a name the first to prove it has it. " +
				"The record is to stay: it is looked for every day, and a hostname whose record is gone for three days in a row is lost.",
			Errors: []int{401, 403, 404, 409, 422, 429, 503}}, a.verifyHostname)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ManageHostnames), maxBody: maxJSON},
		huma.Operation{OperationID: "hostnames.update", Method: http.MethodPatch, Path: path + "/{hostname}", Tags: tags,
			Summary: "Make a hostname the primary one", Description: "The one that was primary goes on answering.",
			Errors: []int{400, 401, 403, 404, 413, 422, 503}}, a.updateHostname)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ManageHostnames), maxBody: noBody},
		huma.Operation{OperationID: "hostnames.delete", Method: http.MethodDelete, Path: path + "/{hostname}", Tags: tags, DefaultStatus: http.StatusNoContent,
			Summary: "Give up a hostname", Description: "The store's address on the platform stays.",
			Errors: []int{401, 403, 404, 422}}, a.removeHostname)
}

type hostnameDetailsView struct {
	Hostname     string            `json:"hostname"`
	Primary      bool              `json:"primary"`
	Custom       bool              `json:"custom"`
	Verified     bool              `json:"verified"`
	CreatedAt    time.Time         `json:"createdAt"`
	VerifiedAt   *time.Time        `json:"verifiedAt"`
	PointTo      string            `json:"pointTo" doc:"Where the name should lead: with a CNAME record or, at the top of a domain, ALIAS" example:"my-store.shops.example.com"`
	Verification *verificationView `json:"verification" doc:"null for the store's address on the platform, which needs none"`
}

type verificationView struct {
	Record        recordView         `json:"record" doc:"The DNS record that proves that the name is yours"`
	ExpiresAt     *time.Time         `json:"expiresAt" doc:"Until when the record is waited for; null once it was found"`
	LastCheckedAt *time.Time         `json:"lastCheckedAt"`
	LastError     *hostnameFaultView `json:"lastError" doc:"Why the last check did not find the record; null if it did, or before the first one"`
	Misses        int                `json:"misses" doc:"Daily checks in a row that did not find the record; with the third the hostname is lost"`
}

type recordView struct {
	Type  string `json:"type" enum:"TXT"`
	Name  string `json:"name" example:"_stoa.shop.example.com"`
	Value string `json:"value" example:"stoa-verification=kx3v"`
}

type hostnameFaultView struct {
	Code    hostnames.VerificationFault `json:"code" enum:"record_not_found,record_mismatch,dns_unavailable"`
	Message string                      `json:"message"`
}

func newHostnameDetailsView(h hostnames.Details) hostnameDetailsView {
	v := hostnameDetailsView{
		Hostname: h.Hostname.Hostname, Primary: h.Primary, Custom: h.Custom, Verified: h.VerifiedAt != nil,
		CreatedAt: h.CreatedAt, VerifiedAt: h.VerifiedAt, PointTo: h.PointTo,
	}
	if p := h.Verification; p != nil {
		v.Verification = &verificationView{
			Record:    recordView{Type: "TXT", Name: h.RecordName(), Value: h.RecordValue()},
			ExpiresAt: p.ExpiresAt, LastCheckedAt: p.CheckedAt, Misses: p.Misses,
		}
		if p.Fault != "" {
			v.Verification.LastError = &hostnameFaultView{Code: p.Fault, Message: p.Fault.Message(h.RecordName())}
		}
	}
	return v
}

type hostnameOutput struct {
	Status   int
	Location string `header:"Location"` // of a new one
	Body     hostnameDetailsView
}

type hostnamesOutput struct {
	Body struct {
		Data       []hostnameDetailsView `json:"data"`
		NextCursor *string               `json:"nextCursor" doc:"Always null"`
	}
}

// HostnamePath names one hostname of a store in a path.
type HostnamePath struct {
	StorePath
	Hostname string `path:"hostname" maxLength:"1000" doc:"One of the store's hostnames" example:"shop.example.com"`
}

func (a *api) listHostnames(ctx context.Context, in *StorePath) (*hostnamesOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	list, err := a.Hostnames.List(ctx, principal(ctx), id)
	if err != nil {
		return nil, err
	}
	out := &hostnamesOutput{}
	out.Body.Data = make([]hostnameDetailsView, len(list))
	for i, h := range list {
		out.Body.Data[i] = newHostnameDetailsView(h)
	}
	return out, nil
}

type claimHostnameInput struct {
	StorePath
	Body struct {
		Hostname string `json:"hostname" maxLength:"1000" example:"shop.example.com" doc:"The whole name, without scheme, port or path"`
	}
}

func (a *api) claimHostname(ctx context.Context, in *claimHostnameInput) (*hostnameOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	h, made, err := a.Hostnames.Claim(ctx, principal(ctx), id, in.Body.Hostname)
	if err != nil {
		return nil, err
	}
	out := &hostnameOutput{Status: http.StatusOK, Body: newHostnameDetailsView(h)}
	if made {
		out.Status, out.Location = http.StatusCreated, storeAddress(id)+"/hostnames/"+h.Hostname.Hostname
	}
	return out, nil
}

func (a *api) verifyHostname(ctx context.Context, in *HostnamePath) (*hostnameOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	h, err := a.Hostnames.Verify(ctx, principal(ctx), id, in.Hostname)
	if err != nil {
		return nil, err
	}
	return &hostnameOutput{Status: http.StatusOK, Body: newHostnameDetailsView(h)}, nil
}

type updateHostnameInput struct {
	HostnamePath
	Body struct {
		Primary bool `json:"primary" doc:"true; to unmake a primary hostname, make another one primary"`
	}
}

func (a *api) updateHostname(ctx context.Context, in *updateHostnameInput) (*hostnameOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	if !in.Body.Primary {
		var faults stoa.Invalid
		faults.Add("primary", "can only be true; to unmake a primary hostname, make another one primary")
		return nil, faults.Err()
	}
	h, err := a.Hostnames.MakePrimary(ctx, principal(ctx), id, in.Hostname)
	if err != nil {
		return nil, err
	}
	return &hostnameOutput{Status: http.StatusOK, Body: newHostnameDetailsView(h)}, nil
}

func (a *api) removeHostname(ctx context.Context, in *HostnamePath) (*struct{}, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	return nil, a.Hostnames.Remove(ctx, principal(ctx), id, in.Hostname)
}
