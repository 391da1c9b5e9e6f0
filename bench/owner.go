package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
)

// owner is a user of the platform who calls its API.
type owner struct{ address, token string }

type object = map[string]any

func register(ctx context.Context, address string) (*owner, error) {
	return registerAs(ctx, address, "owner@bench.example")
}

func registerAs(ctx context.Context, address, email string) (*owner, error) {
	o := &owner{address: address}
	var session struct{ AccessToken string }
	err := o.call(ctx, "POST", "/api/auth/register", object{
		"email": email, "password": "many-shops-under-1-roof", "firstName": "Bench", "lastName": "Owner",
	}, &session)
	o.token = session.AccessToken
	return o, err
}

// postgresAt and managed return the body of a connect-database request.
func postgresAt(databaseURL string) object {
	return object{"type": "postgresql", "connectionString": databaseURL}
}

func managed() object { return object{"type": "managed"} }

// create creates a store that has no database yet.
func (o *owner) create(ctx context.Context, slug string) (id string, err error) {
	var store struct{ ID string }
	err = o.call(ctx, "POST", "/api/stores/create", object{"name": "Store " + slug, "slug": slug}, &store)
	return store.ID, err
}

// connect connects a store's database and returns when the store is active.
func (o *owner) connect(ctx context.Context, id string, database object) error {
	var store struct{ Status string }
	err := o.call(ctx, "POST", "/api/stores/"+id+"/connect-database", database, &store)
	if err == nil && store.Status != "active" {
		err = fmt.Errorf("store %s is %s after it was connected", id, store.Status)
	}
	return err
}

// openStore creates a store, connects its database and fills in its profile, so that
// answers have a body of ordinary size.
func (o *owner) openStore(ctx context.Context, slug string, database object) (shop, error) {
	var store struct {
		ID, Status string
		Hostnames  []struct{ Hostname string }
	}
	if err := o.call(ctx, "POST", "/api/stores/create", object{"name": "Store " + slug, "slug": slug}, &store); err != nil {
		return shop{}, err
	}
	path := "/api/stores/" + store.ID
	if err := o.call(ctx, "POST", path+"/connect-database", database, &store); err != nil {
		return shop{}, err
	}
	if store.Status != "active" || len(store.Hostnames) == 0 {
		return shop{}, fmt.Errorf("%s is %s after it was connected", slug, store.Status)
	}
	_, port, err := net.SplitHostPort(o.address)
	if err != nil {
		return shop{}, err
	}
	s := shop{id: store.ID, slug: slug, host: net.JoinHostPort(store.Hostnames[0].Hostname, port)}
	return s, o.call(ctx, "PATCH", path, profile(slug), nil)
}

func profile(slug string) object {
	return object{
		"description":  "Oils, herbs and honey from small growers, packed by hand and sent on the day of your order.",
		"contactEmail": "hello@" + slug + ".example", "contactPhone": "+30 210 555 0100", "website": "https://" + slug + ".example",
		"addressLine1": "12 Stoa Street", "addressLine2": "Second floor", "city": "Athens", "region": "Attica", "postalCode": "105 55", "country": "GR",
		"currency": "EUR", "timezone": "Europe/Athens", "locale": "en", "logoUrl": "https://" + slug + ".example/logo.svg",
		"theme":    object{"primaryColor": "#5b7042", "font": "Inter", "layout": "grid"},
		"settings": object{"taxIncluded": true, "orderPrefix": "B-"},
	}
}

// spend takes one credit from the store.
func (o *owner) spend(ctx context.Context, id string) error {
	return o.call(ctx, http.MethodPost, "/api/credits/spend?storeId="+id, object{"amount": "1"}, nil)
}

// keepAlive keeps a connection open for each of many callers.
var keepAlive = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}

// call sends in as JSON and decodes the answer into out. The Prefer header makes
// connect-database wait as long as possible; the other operations ignore it.
func (o *owner) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+o.address+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Prefer", "wait=60")
	if o.token != "" {
		req.Header.Set("Authorization", "Bearer "+o.token)
	}
	res, err := keepAlive.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, bytes.TrimSpace(answer))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}
