package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

type demoCmd struct {
	Postgres keyring.Secret `env:"STOA_DEMO_POSTGRES_URL" help:"An empty PostgreSQL database for the second store: postgres://user:password@host/database." placeholder:"URL"`
	MySQL    keyring.Secret `name:"mysql" env:"STOA_DEMO_MYSQL_URL" help:"An empty MySQL or MariaDB database for the third store: mysql://user:password@host/database." placeholder:"URL"`
	JSON     bool           `help:"Print JSON."`
}

// Help is shown by 'stoa demo --help'.
func (demoCmd) Help() string {
	return "Makes what is not there yet, so it can be run again. A store whose engine is not given gets an embedded SQLite database. " +
		"It works in a platform that 'stoa serve' has made, also while that runs, and refuses to run in production."
}

// These are the credentials of the demo's owner. They are not secret: the demo exists in
// development only.
const (
	demoEmail    = "demo@example.com"
	demoPassword = "three-shops-1-roof" //nolint:gosec // printed for every user of the demo
	demoCredits  = 250
)

type demoProduct struct {
	name, description string
	price             int64 // minor units
}

type demoStore struct {
	name, slug, description, currency, color string
	products                                 []demoProduct
}

var demoStores = []demoStore{
	{name: "Olive & Thyme", slug: "olive-thyme", description: "Oils, herbs and honey from small growers.", currency: "EUR", color: "#5b7042", products: []demoProduct{
		{name: "Early harvest olive oil", description: "Cold pressed in October, peppery and green. 500 ml.", price: 1890},
		{name: "Wild thyme honey", description: "From the hills above Kalamata. 400 g.", price: 1250},
		{name: "Dried oregano", description: "Picked in flower, rubbed by hand. 60 g.", price: 490},
		{name: "Sea salt flakes", description: "Raked from rock pools. 150 g.", price: 620},
	}},
	{name: "North Paper", slug: "north-paper", description: "Notebooks and paper for people who still write by hand.", currency: "USD", color: "#2f4b7c", products: []demoProduct{
		{name: "Field notebook", description: "Pocket size, 96 dotted pages, lies flat.", price: 1200},
		{name: "Letter set", description: "Twenty sheets, twenty envelopes, cotton paper.", price: 2400},
		{name: "Brass pencil sharpener", description: "Made in one piece, lasts for good.", price: 1650},
	}},
	{name: "Kilo Coffee", slug: "kilo-coffee", description: "Coffee by the kilo, roasted on Tuesdays.", currency: "GBP", color: "#7a3b1d", products: []demoProduct{
		{name: "House espresso", description: "Chocolate, hazelnut, no surprises. 1 kg.", price: 2600},
		{name: "Ethiopia Guji", description: "Washed; peach and jasmine. 1 kg.", price: 3400},
		{name: "Decaf Colombia", description: "Sugar-cane process. 1 kg.", price: 2900},
	}},
}

// demoResult is one store in the output.
type demoResult struct {
	Name    string                `json:"name"`
	URL     string                `json:"url"`
	Engine  credential.EngineName `json:"engine"`
	Credits credits.Amount        `json:"credits"`
}

func (cmd demoCmd) Run(e *Env) error {
	if !e.Cfg.Development() {
		return errors.New("the demo is for development only: its password is public")
	}
	e.Cfg.Quotas = config.Quotas{KeepSlugs: e.Cfg.KeepSlugs}                              // the demo's owner verifies no address
	e.Cfg.StripeSecretKey, e.Cfg.StripeWebhookSecret = keyring.Secret{}, keyring.Secret{} // the demo must not charge money
	a, err := e.openApp(e.Ctx)
	if err != nil {
		return err
	}
	if err := a.Queue.Start(e.Ctx); err != nil {
		return errors.Join(err, a.Close(e.Ctx))
	}
	a.Provisioning.Start(e.Ctx)
	results, err := cmd.build(e.Ctx, a)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.Ctx), e.Cfg.StopTimeout)
	defer cancel()
	if err := errors.Join(err, a.Provisioning.Stop(ctx), a.Queue.Stop(ctx), a.Close(ctx)); err != nil {
		return err
	}
	return cmd.print(e, results)
}

func (cmd demoCmd) build(ctx context.Context, a *app.App) ([]demoResult, error) {
	p, err := demoOwner(ctx, a)
	if err != nil {
		return nil, err
	}
	credentials := make([]credential.Credentials, len(demoStores))
	for i, given := range []struct {
		engine credential.EngineName
		url    keyring.Secret
	}{{}, {credential.PostgreSQL, cmd.Postgres}, {credential.MySQL, cmd.MySQL}} {
		credentials[i].Kind = credential.Managed
		if given.url.IsZero() {
			continue
		}
		if credentials[i], err = credential.ParseConnectionString(given.engine, given.url); err != nil {
			return nil, err
		}
	}
	var results []demoResult
	for i, d := range demoStores {
		r, err := d.build(ctx, a, p, credentials[i])
		if err != nil {
			return results, fmt.Errorf("%s: %w", d.name, err)
		}
		results = append(results, r)
	}
	return results, nil
}

// demoOwner creates the demo's account, or signs in if it exists.
func demoOwner(ctx context.Context, a *app.App) (authz.Principal, error) {
	password, client := keyring.NewSecret(demoPassword), accounts.Client{UserAgent: "stoa demo"}
	session, _, err := a.Accounts.Register(ctx, accounts.Registration{
		Email: demoEmail, Password: password, FirstName: "Demo", LastName: "Owner", Client: client,
	})
	if stoa.CodeOf(err) == stoa.EmailTaken {
		session, err = a.Accounts.Login(ctx, demoEmail, password, client)
	}
	if err != nil {
		return authz.Principal{}, err
	}
	if _, err := accounts.ConfirmEmail(ctx, a.Master, authz.CommandLine("demo"), demoEmail); err != nil { // nobody reads the demo's mail
		return authz.Principal{}, err
	}
	return a.Accounts.Authenticate(ctx, session.AccessToken.Reveal())
}

// build creates one store, or completes one that an earlier run left incomplete.
func (d demoStore) build(ctx context.Context, a *app.App, p authz.Principal, c credential.Credentials) (demoResult, error) {
	s, err := a.Registry.Create(ctx, p, stores.NewStore{Name: d.name, Slug: d.slug, IdempotencyKey: "demo-" + d.slug})
	if err != nil {
		return demoResult{}, err
	}
	if s.Status == stores.PendingDatabase {
		if err := connectDemo(ctx, a, p, s.ID, c); err != nil {
			return demoResult{}, err
		}
		if err := d.furnish(ctx, a, p, s.ID); err != nil {
			return demoResult{}, err
		}
	}
	if err := buyDemoCredits(ctx, a, p, s.ID); err != nil {
		return demoResult{}, err
	}
	if s, err = a.Registry.Get(ctx, p, s.ID); err != nil {
		return demoResult{}, err
	}
	return demoResult{Name: s.Name, URL: storeURL(a.Cfg, s), Engine: s.Database.Engine, Credits: s.Credits.Balance}, nil
}

func connectDemo(ctx context.Context, a *app.App, p authz.Principal, id stoa.StoreID, c credential.Credentials) error {
	run, err := a.Provisioning.Connect(ctx, p, id, c)
	if err != nil {
		return err
	}
	if run, err = a.Provisioning.Wait(ctx, run.ID, time.Minute); err != nil {
		return err
	}
	if run.State != provisioning.Succeeded {
		return errors.Join(errors.New("its database was not set up"), run.Fault.Err())
	}
	return nil
}

// furnish gives the store a profile and products.
func (d demoStore) furnish(ctx context.Context, a *app.App, p authz.Principal, id stoa.StoreID) error {
	theme, err := json.Marshal(map[string]string{"primaryColor": d.color})
	if err != nil {
		return err
	}
	look := storedata.JSON(theme)
	if _, err := a.Registry.Update(ctx, p, id, nil, storedata.ProfilePatch{Description: &d.description, Currency: &d.currency, Theme: &look}); err != nil {
		return err
	}
	lease, err := a.Tenants.Acquire(ctx, id)
	if err != nil {
		return err
	}
	defer lease.Release()
	for i, product := range d.products {
		_, err := storedata.AddProduct(ctx, lease.DB, storedata.NewProduct{
			Name: product.name, Slug: fmt.Sprintf("%s-%d", d.slug, i+1), Description: product.description,
			PriceMinor: product.price, Currency: d.currency,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// buyDemoCredits makes a complete purchase: checkout, payment, event and grant.
func buyDemoCredits(ctx context.Context, a *app.App, p authz.Principal, id stoa.StoreID) error {
	purchase, err := a.Payments.Purchase(ctx, p, id, payments.PurchaseRequest{
		Credits: demoCredits * credits.Credit, IdempotencyKey: "demo-credits",
	})
	if err != nil || purchase.Status == payments.Paid {
		return err
	}
	if err := a.Payments.Pay(ctx, *purchase.ProviderRef); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for purchase.Status != payments.Paid {
		select {
		case <-ctx.Done():
			return errors.New("the payment was not applied in time; run the demo again")
		case <-time.After(20 * time.Millisecond):
		}
		if purchase.Purchase, err = a.Payments.Get(ctx, p, id, purchase.ID); err != nil {
			return err
		}
	}
	return nil
}

// storeURL returns the URL of the store, with the configured port.
func storeURL(cfg *config.Config, s stores.Store) string {
	for _, h := range s.Hostnames {
		if h.Primary {
			return fmt.Sprintf("http://%s:%d", h.Hostname, cfg.Port)
		}
	}
	return ""
}

func (cmd demoCmd) print(e *Env, results []demoResult) error {
	base := e.Cfg.PublicURL(e.Cfg.Port)
	if cmd.JSON {
		return json.NewEncoder(e.Stdout).Encode(map[string]any{
			"email": demoEmail, "password": demoPassword, "url": base, "stores": results,
		})
	}
	printDemo(e.Stdout, base, results)
	return nil
}

func printDemo(w io.Writer, base string, results []demoResult) {
	Printf(w, "\nThe demo is ready. With 'stoa serve' running, open:\n\n")
	for _, r := range results {
		Printf(w, "  %-15s %-36s %s, %s credits\n", r.Name, r.URL, r.Engine, r.Credits)
	}
	Printf(w, "\nSign in as %s with password %s:\n\n", demoEmail, demoPassword)
	Printf(w, "  curl -X POST %s/api/auth/login -H \"Content-Type: application/json\" \\\n    -d '{\"email\":%q,\"password\":%q}'\n\n",
		base, demoEmail, demoPassword)
}
