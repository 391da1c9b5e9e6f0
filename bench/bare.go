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

	"github.com/jackc/pgx/v5/pgxpool"
)

// bareCmd is the yardstick: what a store's handler does when there is nothing
// around it. It runs the query of the platform's store front and gives the
// same body; it has no deadline, access log or headers, and opens its
// connections before it is measured. It reads its job from its input.
type bareCmd struct{}

// bareJob is what the yardstick serves: one store, or many by their Host.
type bareJob struct {
	Databases   map[string]string `json:"databases"`   // Host → URL
	Connections int               `json:"connections"` // shared out among the databases, at least one each
}

// startBare starts the handler as a process and returns its address.
func startBare(ctx context.Context, shops []shop, connections int) (*process, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	j := bareJob{Databases: map[string]string{}, Connections: connections}
	for _, s := range shops {
		j.Databases[s.host] = s.databaseURL
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
	case <-time.After(10 * time.Second):
	}
	p.stop()
	return nil, "", fmt.Errorf("the bare handler did not start")
}

// bareStore has the fields of the platform's answer, in its order.
type bareStore struct {
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

// bareQuery is the query of shop.ReadProfile.
const bareQuery = `
	SELECT id, name, slug, description, contact_email, contact_phone, website, address_line1, address_line2,
		city, region, postal_code, country, currency, timezone, locale, theme, settings, logo_url, created_at, updated_at
	FROM stores WHERE id = $1`

func (bareCmd) Run(ctx context.Context) error {
	var j bareJob
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		return err
	}
	stores := map[string]bareDB{}
	each := (j.Connections + len(j.Databases) - 1) / len(j.Databases)
	for host, url := range j.Databases {
		db, err := openBare(ctx, url, each)
		if err != nil {
			return err
		}
		defer db.pool.Close()
		stores[host] = db
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+storefrontPath, func(w http.ResponseWriter, r *http.Request) { stores[r.Host].answer(w, r) })
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

// bareDB is one store's database.
type bareDB struct {
	pool *pgxpool.Pool
	id   string
}

func openBare(ctx context.Context, url string, connections int) (bareDB, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return bareDB{}, err
	}
	cfg.MaxConns = int32(connections) //nolint:gosec // a handful
	db := bareDB{}
	if db.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return db, err
	}
	return db, db.pool.QueryRow(ctx, `SELECT id FROM stores`).Scan(&db.id)
}

func (db bareDB) answer(w http.ResponseWriter, r *http.Request) {
	var s bareStore
	err := db.pool.QueryRow(r.Context(), bareQuery, db.id).Scan(&s.ID, &s.Name, &s.Slug, &s.Description, &s.ContactEmail, &s.ContactPhone,
		&s.Website, &s.AddressLine1, &s.AddressLine2, &s.City, &s.Region, &s.PostalCode, &s.Country, &s.Currency, &s.Timezone,
		&s.Locale, &s.Theme, &s.settings, &s.LogoURL, &s.createdAt, &s.updatedAt)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // the client may be gone
}
