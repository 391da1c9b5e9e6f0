package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// bareCmd is the yardstick: what a single store's handler does when there is
// nothing around it. It runs the query of the platform's store front and
// gives the same body; it has no tenants, deadline, access log or headers.
type bareCmd struct{}

const (
	bareDatabase    = "BENCH_DATABASE_URL"
	bareConnections = "BENCH_CONNECTIONS"
)

// startBare starts the handler as a process and returns its address.
func startBare(ctx context.Context, databaseURL string, connections int) (*process, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, "bare") //nolint:gosec // this binary
	cmd.Env = append(os.Environ(), bareDatabase+"="+databaseURL, bareConnections+"="+strconv.Itoa(connections))
	cmd.Stderr = os.Stderr
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
	cfg, err := pgxpool.ParseConfig(os.Getenv(bareDatabase))
	if err != nil {
		return err
	}
	connections, err := strconv.ParseInt(os.Getenv(bareConnections), 10, 32)
	if err != nil {
		return err
	}
	cfg.MaxConns = int32(connections)
	db, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	var id string
	if err := db.QueryRow(ctx, `SELECT id FROM stores`).Scan(&id); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+storefrontPath, func(w http.ResponseWriter, r *http.Request) { answerBare(w, r, db, id) })
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

func answerBare(w http.ResponseWriter, r *http.Request, db *pgxpool.Pool, id string) {
	var s bareStore
	err := db.QueryRow(r.Context(), bareQuery, id).Scan(&s.ID, &s.Name, &s.Slug, &s.Description, &s.ContactEmail, &s.ContactPhone,
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
