package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// bareCmd is the baseline: a store's handler without any of the platform's layers. It runs
// the query of the platform's storefront and returns the same body. It has no deadline,
// access log or headers. It reads its job from its input.
type bareCmd struct{}

// bareJob says what the baseline serves: one store, or many by their Host.
type bareJob struct {
	Stores []bareStore `json:"stores"`
	Master string      `json:"master,omitempty"` // a master whose balances are served as well

	// Exactly one of these is set. Connections are divided among the stores, at least one
	// each, and are open before the measurement. Cached connections are opened on demand,
	// one per store; at the limit, the least recently used one is closed.
	Connections int `json:"connections"`
	Cached      int `json:"cached"`
}

type bareStore struct {
	Host string `json:"host"`
	URL  string `json:"url"`
	ID   string `json:"id"`
}

// startBare starts a process with the handler for the shops and returns its address.
func startBare(ctx context.Context, shops []shop, j bareJob) (*process, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	for _, s := range shops {
		j.Stores = append(j.Stores, bareStore{s.host, s.databaseURL, s.id})
	}
	in, err := json.Marshal(j)
	if err != nil {
		return nil, "", err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, "bare") //nolint:gosec // this binary
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	address := make(chan string, 1)
	p, err := launch(cmd)
	if err != nil {
		return nil, "", err
	}
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		address <- strings.TrimSpace(line)
	}()
	select {
	case a := <-address:
		if a != "" {
			return p, a, nil
		}
	case <-time.After(30 * time.Second):
	}
	p.stop()
	return nil, "", fmt.Errorf("the bare handler did not start")
}

// bareDatabases reads a store from its own database.
type bareDatabases interface {
	read(ctx context.Context, host string, into *bareAnswer) error
	close()
}

func (bareCmd) Run(ctx context.Context) error {
	var j bareJob
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		return err
	}
	db, err := j.open(ctx)
	if err != nil {
		return err
	}
	defer db.close()
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+storefrontPath, func(w http.ResponseWriter, r *http.Request) {
		var a bareAnswer
		if err := db.read(r.Context(), r.Host, &a); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		_ = e.Encode(a) // the client may have disconnected
	})
	if cache, ok := db.(*connCache); ok {
		mux.HandleFunc("GET "+connectsPath, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, cache.connects.Load()) })
	}
	if j.Master != "" {
		balances, err := openPools(ctx, []bareStore{{URL: j.Master}}, j.Connections)
		if err != nil {
			return err
		}
		defer balances.close()
		mux.HandleFunc("GET "+balancePath, func(w http.ResponseWriter, r *http.Request) {
			var a bareBalance
			if err := a.scan(balances[""].QueryRow(r.Context(), bareBalanceQuery, r.URL.Query().Get("storeId"))); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(a) // the client may have disconnected
		})
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); ctx.Err() == nil {
		return err
	}
	return nil
}

func (j bareJob) open(ctx context.Context) (bareDatabases, error) {
	if j.Cached > 0 {
		return newConnCache(j.Stores, j.Cached)
	}
	stores := max(1, len(j.Stores)) // none: only balances are served
	return openPools(ctx, j.Stores, (j.Connections+stores-1)/stores)
}

// barePools holds a pool for each store, by Host.
type barePools map[string]barePool

type barePool struct {
	*pgxpool.Pool
	id string
}

func openPools(ctx context.Context, stores []bareStore, each int) (barePools, error) {
	pools := barePools{}
	for _, s := range stores {
		cfg, err := pgxpool.ParseConfig(s.URL)
		if err != nil {
			return pools, err
		}
		cfg.MaxConns = int32(each) //nolint:gosec // a small number
		pool, err := pgxpool.NewWithConfig(ctx, cfg)
		if err != nil {
			return pools, err
		}
		pools[s.Host] = barePool{pool, s.ID}
		if err := pool.Ping(ctx); err != nil {
			return pools, err
		}
	}
	return pools, nil
}

func (p barePools) read(ctx context.Context, host string, into *bareAnswer) error {
	pool := p[host]
	return into.scan(pool.QueryRow(ctx, bareQuery, pool.id))
}

func (p barePools) close() {
	for _, pool := range p {
		pool.Close()
	}
}

// bareAnswer has the fields of the platform's answer, in the same order.
type bareAnswer struct {
	ID           string          `json:"id"`
	Name         string          `json:"name"`
	Slug         string          `json:"slug"`
	Description  string          `json:"description"`
	ContactEmail string          `json:"contactEmail"`
	ContactPhone string          `json:"contactPhone"`
	Website      string          `json:"website"`
	AddressLine1 string          `json:"addressLine1"`
	AddressLine2 string          `json:"addressLine2"`
	City         string          `json:"city"`
	Region       string          `json:"region"`
	PostalCode   string          `json:"postalCode"`
	Country      string          `json:"country"`
	Currency     string          `json:"currency"`
	Timezone     string          `json:"timezone"`
	Locale       string          `json:"locale"`
	LogoURL      string          `json:"logoUrl"`
	Theme        json.RawMessage `json:"theme"`

	settings             json.RawMessage
	createdAt, updatedAt time.Time
}

// bareBalance has the numbers of the platform's answer.
type bareBalance struct {
	Balance           string `json:"balance"`
	Reserved          string `json:"reserved"`
	Debt              string `json:"debt"`
	LifetimePurchased string `json:"lifetimePurchased"`
	LifetimeSpent     string `json:"lifetimeSpent"`

	updatedAt time.Time
}

// bareBalanceQuery reads one balance. It checks no permission.
const bareBalanceQuery = `SELECT balance::text, reserved::text, debt::text, lifetime_purchased::text, lifetime_spent::text, updated_at
	FROM credit_balances WHERE store_id = $1`

func (a *bareBalance) scan(row pgx.Row) error {
	return row.Scan(&a.Balance, &a.Reserved, &a.Debt, &a.LifetimePurchased, &a.LifetimeSpent, &a.updatedAt)
}

// bareQuery reads what storedata.ReadProfile reads, whose query also limits the length of texts.
const bareQuery = `
	SELECT id, name, slug, description, contact_email, contact_phone, website, address_line1, address_line2,
		city, region, postal_code, country, currency, timezone, locale, theme, settings, logo_url, created_at, updated_at
	FROM stores WHERE id = $1`

func (a *bareAnswer) scan(row pgx.Row) error {
	return row.Scan(&a.ID, &a.Name, &a.Slug, &a.Description, &a.ContactEmail, &a.ContactPhone,
		&a.Website, &a.AddressLine1, &a.AddressLine2, &a.City, &a.Region, &a.PostalCode, &a.Country, &a.Currency, &a.Timezone,
		&a.Locale, &a.Theme, &a.settings, &a.LogoURL, &a.createdAt, &a.updatedAt)
}
