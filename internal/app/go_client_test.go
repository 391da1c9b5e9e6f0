package app_test

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	stoaclient "github.com/stoahq/stoa/client"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestGoClient follows the path of the README with the Go client: from registration to the
// store at its hostname, and on to credits and API keys.
func TestGoClient(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	j := goJourney{t: t, s: s, visitor: newGoClient(t, s.URL)}
	j.register()
	j.connect()
	j.openStorefront()
	j.useCredits()
	j.useKey()
	j.leave()
}

type goJourney struct {
	t              *testing.T
	s              *server
	visitor, owner *stoaclient.Client
	tokens         stoaclient.Tokens
	store          string // its id
}

func newGoClient(t *testing.T, url string, options ...stoaclient.Option) *stoaclient.Client {
	t.Helper()
	c, err := stoaclient.New(url, options...)
	testkit.Must(t, err)
	return c
}

// register makes an account with a store, confirms its address and signs in.
func (j *goJourney) register() {
	t, ctx := j.t, j.t.Context()
	if _, err := j.visitor.Stores.List(ctx, nil); !stoaclient.HasCode(err, stoaclient.ProblemCodeTokenInvalid) {
		t.Errorf("a list without a token: %v", err)
	}
	registered, err := j.visitor.Auth.Register(ctx, stoaclient.RegisterRequest{
		Email: "owner@example.com", Password: testPassword, FirstName: "John", LastName: "Doe", StoreName: stoaclient.Pointer("My First Store"),
	})
	testkit.Must(t, err)
	j.store = registered.Store.ID
	link, err := url.Parse(client{t: t, url: j.s.URL}.mailed("verify"))
	testkit.Must(t, err)
	testkit.Must(t, j.visitor.Auth.VerifyEmail(ctx, stoaclient.VerifyEmailRequest{Token: link.Query().Get("token"), Password: stoaclient.Pointer(testPassword)}))
	tokens, err := j.visitor.Auth.Login(ctx, stoaclient.LoginRequest{Email: "owner@example.com", Password: testPassword})
	testkit.Must(t, err)
	// The access token comes by the first exchange of the refresh token.
	exchanges := 0
	j.owner = newGoClient(t, j.s.URL, stoaclient.WithTokens(stoaclient.Tokens{RefreshToken: tokens.RefreshToken}, func(fresh stoaclient.Tokens) {
		exchanges++
		j.tokens = fresh
	}))
	account, err := j.owner.Account.Get(ctx)
	testkit.Must(t, err)
	if !account.User.EmailVerified || len(account.Stores) != 1 || exchanges != 1 || j.tokens.RefreshToken == tokens.RefreshToken {
		t.Errorf("%+v after %d exchanges", account, exchanges)
	}
}

// connect gives the store a database and follows the work.
func (j *goJourney) connect() {
	t, ctx := j.t, j.t.Context()
	active, run, err := j.owner.Database.Connect(ctx, j.store, stoaclient.ConnectRequest{Type: stoaclient.ConnectRequestTypeManaged}, stoaclient.WithHeader("Prefer", "wait=0"))
	testkit.Must(t, err)
	if active != nil || run == nil || run.StoreID != j.store {
		t.Errorf("the store is %+v, the run %+v", active, run)
	}
	var last stoaclient.ProvisioningEvent
	steps := 0
	for event, err := range j.owner.Provisioning.Events(ctx, j.store) {
		testkit.Must(t, err)
		last = event
		steps++
	}
	if last.Step != nil || last.State != stoaclient.ProvisioningEventStateSucceeded || steps < 8 {
		t.Errorf("%d events, the last one %+v", steps, last)
	}
	var header http.Header
	store, err := j.owner.Stores.Get(ctx, j.store, stoaclient.SaveHeader(&header))
	testkit.Must(t, err)
	if store.Status != stoaclient.StoreStatusActive {
		t.Errorf("the store is %s", store.Status)
	}
	patch := stoaclient.ProfilePatch{Description: stoaclient.Pointer("Oil & more"), Settings: map[string]any{"tips": true}}
	changed, err := j.owner.Stores.Update(ctx, j.store, patch, stoaclient.IfMatch(header.Get("ETag")))
	testkit.Must(t, err)
	if changed.Profile.Description != "Oil & more" || changed.Profile.Settings["tips"] != true {
		t.Errorf("%+v", changed.Profile)
	}
	if _, err := j.owner.Stores.Update(ctx, j.store, patch, stoaclient.IfMatch(header.Get("ETag"))); !stoaclient.HasCode(err, stoaclient.ProblemCodeEditConflict) {
		t.Errorf("a change of an old version: %v", err)
	}
}

// openStorefront reads the store at its own hostname.
func (j *goJourney) openStorefront() {
	t, ctx := j.t, j.t.Context()
	address := strings.TrimPrefix(j.s.URL, "http://")
	_, port, err := net.SplitHostPort(address)
	testkit.Must(t, err)
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) { // stands for DNS
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}
	defer transport.CloseIdleConnections()
	shopper := newGoClient(t, "http://my-first-store.localhost:"+port, stoaclient.WithHTTPClient(&http.Client{Transport: transport}))
	front, err := shopper.Storefront.Store(ctx)
	testkit.Must(t, err)
	if front.ID != j.store || front.Description != "Oil & more" {
		t.Errorf("%+v", front)
	}
	products, err := shopper.Storefront.Products(ctx, nil)
	testkit.Must(t, err)
	if len(products.Data) != 0 {
		t.Errorf("products of a new store: %+v", products)
	}
}

// useCredits buys and spends credits and reads the ledger.
func (j *goJourney) useCredits() {
	t, ctx := j.t, j.t.Context()
	purchase, err := j.owner.Purchases.Create(ctx, stoaclient.PurchaseRequest{Credits: "100"}, stoaclient.InStore(j.store))
	testkit.Must(t, err)
	client{t: t}.call("POST", purchase.CheckoutURL+"/pay", nil).want(http.StatusSeeOther)
	testkit.Eventually(t, testkit.Timeout, "the purchase is paid", func() bool {
		purchase, err = j.owner.Purchases.Get(ctx, purchase.ID)
		testkit.Must(t, err)
		return purchase.Status == stoaclient.PurchaseStatusPaid
	})
	for range 2 { // the key makes it one
		spent, err := j.owner.Credits.Spend(ctx, stoaclient.SpendRequest{Amount: stoaclient.Pointer("12.5")}, stoaclient.InStore(j.store), stoaclient.WithIdempotencyKey("import-1"))
		testkit.Must(t, err)
		if spent.Balance.Balance != "87.5" || spent.Transaction.Amount != "-12.5" {
			t.Errorf("%+v", spent)
		}
	}
	for range 2 { // each call has a key of its own
		_, err := j.owner.Credits.Spend(ctx, stoaclient.SpendRequest{ServiceKey: stoaclient.Pointer("product_import"), Quantity: stoaclient.Pointer(int64(1))})
		testkit.Must(t, err)
	}
	if _, err := j.owner.Credits.Spend(ctx, stoaclient.SpendRequest{Amount: stoaclient.Pointer("1000")}); !stoaclient.HasCode(err, stoaclient.ProblemCodeInsufficientCredits) {
		t.Errorf("too much is spent: %v", err)
	}
	var entries []string
	for entry, err := range j.owner.Transactions.All(ctx, &stoaclient.TransactionsListParams{Limit: stoaclient.Pointer(int64(1))}) {
		testkit.Must(t, err)
		entries = append(entries, string(entry.Type))
	}
	if got := strings.Join(entries, " "); got != "spend spend spend purchase" {
		t.Errorf("the ledger has %s", got)
	}
	spends := stoaclient.TransactionsListParamsType("spend")
	page, err := j.owner.Transactions.List(ctx, &stoaclient.TransactionsListParams{Type: &spends, From: stoaclient.Pointer(time.Now().Add(-time.Hour))})
	testkit.Must(t, err)
	if len(page.Data) != 3 {
		t.Errorf("%d spends", len(page.Data))
	}
}

// useKey spends with an API key, which may do only what its scopes say.
func (j *goJourney) useKey() {
	t, ctx := j.t, j.t.Context()
	made, err := j.owner.APIKeys.Create(ctx, j.store, stoaclient.CreateKeyRequest{Name: "Shop", Scopes: []string{"credits:spend", "credits:read"}})
	testkit.Must(t, err)
	program := newGoClient(t, j.s.URL, stoaclient.WithAPIKey(made.Key))
	_, err = program.Credits.Spend(ctx, stoaclient.SpendRequest{Amount: stoaclient.Pointer("1")})
	testkit.Must(t, err)
	if _, err := program.Stores.Suspend(ctx, j.store); !stoaclient.HasCode(err, stoaclient.ProblemCodeForbidden) {
		t.Errorf("beyond its scopes: %v", err)
	}
	testkit.Must(t, j.owner.APIKeys.Delete(ctx, j.store, made.ID))
	if _, err := program.Credits.Balance(ctx); !stoaclient.HasCode(err, stoaclient.ProblemCodeTokenInvalid) {
		t.Errorf("a revoked key: %v", err)
	}
}

func (j *goJourney) leave() {
	t, ctx := j.t, j.t.Context()
	testkit.Must(t, j.owner.Auth.Logout(ctx))
	if _, err := j.owner.Stores.Get(ctx, j.store); !stoaclient.HasCode(err, stoaclient.ProblemCodeSessionRevoked) {
		t.Errorf("after the logout: %v", err)
	}
}
