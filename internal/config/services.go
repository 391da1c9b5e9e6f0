package config

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/httpapi"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/ratelimit"
	"github.com/stoahq/stoa/internal/supabase"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tracing"
)

// Sales returns the settings of payments. Credits are sold through Stripe if there
// is a key, else in development through the sandbox, else not at all.
func (c *Config) Sales(publicURL string, signing *keyring.Ring, log *slog.Logger) payments.Config {
	out := payments.Config{
		StripeKey: c.StripeSecretKey, StripeURL: c.StripeURL, WebhookSecret: c.StripeWebhookSecret,
		CreditPrice: c.price(), BaseURL: publicURL, Log: log,
	}
	if c.Sandbox() {
		out.Sandbox, out.WebhookSecret = true, SandboxSecret(signing)
	}
	return out
}

// SandboxSecret returns the secret that signs the sandbox's payment events. It is
// derived from the signing key, so that all replicas share it and it survives a
// restart.
func SandboxSecret(signing *keyring.Ring) keyring.Secret {
	_, key := signing.Current()
	secret, err := hkdf.Key(sha256.New, key, nil, "stoa sandbox webhook", sha256.Size)
	if err != nil {
		panic(err) // the length is within HKDF's bounds
	}
	return keyring.NewSecret("whsec_" + hex.EncodeToString(secret))
}

// Supabase returns a client of Supabase's Management API, or nil without an OAuth
// application.
func (c *Config) Supabase() *supabase.Client {
	if c.SupabaseClientID == "" {
		return nil
	}
	return supabase.New(supabase.Options{URL: c.SupabaseURL, ClientID: c.SupabaseClientID, ClientSecret: c.SupabaseClientSecret})
}

// API returns the settings of the HTTP API. The configuration must have been checked.
func (c *Config) API(url string, log *slog.Logger, metrics prometheus.Registerer, draining, stopping <-chan struct{}) httpapi.Config {
	proxies, _ := c.proxies()
	return httpapi.Config{
		BaseURL: url, BaseDomain: c.BaseDomain, Development: c.Development(), Sandbox: c.Sandbox(), Log: log, Metrics: metrics,
		Draining: draining, Stopping: stopping, Rates: c.rates(), Proxies: proxies, Hosts: c.PlatformHosts, CORS: c.cors(),
		SecurityContact: c.SecurityContact,
	}
}

// Memory returns the budget for the bytes of responses. Reading and writing the longest
// page of products takes less than half of the smallest share.
func (c *Config) Memory() *ratelimit.ByteBudget {
	total := int64(c.AnswerMemory) << 20
	return ratelimit.NewByteBudget(total, max(total/16, 16<<20))
}

// Mail returns the sender of mail. In production, without a mail server, it sends
// nothing. tracer may be nil.
func (c *Config) Mail(log *slog.Logger, tracer *tracing.Tracer) (*mail.Sender, error) {
	opts := mail.Options{URL: c.SMTPURL, From: c.MailFrom, Log: log, Tracer: tracer}
	if opts.From == "" {
		opts.From = "Stoa <no-reply@" + c.BaseDomain + ">"
	}
	if c.Development() {
		opts.Dir = filepath.Join(c.DataDir, "mail")
	}
	return mail.New(opts)
}

func (c *Config) price() payments.Price {
	return payments.Price{MinorPerCredit: c.CreditPrice, Currency: strings.ToUpper(c.Currency)}
}

// AllowedNetworks returns the special networks that tenant databases may be in.
func (c *Config) AllowedNetworks() ([]netip.Prefix, error) {
	out, err := parseNetworks(c.AllowNetworks)
	if err != nil {
		return nil, err
	}
	if c.Development() {
		out = append(out, dial.Loopback...)
	}
	return out, nil
}

// supabaseRoots returns the PEM certificates to trust at Supabase's servers; if
// empty, the system's are trusted.
func (c *Config) supabaseRoots() (string, error) { return pemFile(c.SupabaseCA) }

// pemFile reads certificates. It returns none without a path.
func pemFile(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	roots, err := os.ReadFile(path) //nolint:gosec // the path is configured by the operator
	if err != nil {
		return "", fmt.Errorf("cannot be read: %w", err)
	}
	certificates, err := credential.ReadCertificates(string(roots))
	if err != nil {
		return "", fmt.Errorf("%s %w", path, err)
	}
	return certificates, nil
}

// ManagedServer returns the server on which managed databases are created, or nil
// without the setting. A CA file that cannot be read is reported separately.
func (c *Config) ManagedServer() (*credential.Server, error) {
	if c.ManagedDatabaseURL.IsZero() {
		return nil, nil //nolint:nilnil // documented: no server
	}
	ca, _ := pemFile(c.ManagedDatabaseCA)
	return credential.ParseServer(c.ManagedDatabaseURL, ca)
}

// SupabaseRules returns the rules that distinguish Supabase's servers, or those of a
// stand-in, from all others. A CA file that cannot be read is reported separately.
func (c *Config) SupabaseRules() (credential.SupabaseRules, error) {
	rules := credential.SupabaseRules{}
	rules.Roots, _ = c.supabaseRoots()
	if c.SupabasePooler == "" {
		return rules, nil
	}
	first, transaction, _ := strings.Cut(c.SupabasePooler, ",")
	host, session, err := net.SplitHostPort(first)
	if err != nil || host == "" || !stoa.IsPort(session) || !stoa.IsPort(transaction) {
		return rules, errors.New("must be a host with two ports, such as 127.0.0.1:5432,6543")
	}
	rules.PoolerDomain = host
	rules.SessionPort, _ = strconv.Atoi(session)
	rules.TransactionPort, _ = strconv.Atoi(transaction)
	return rules, nil
}

// Sandbox reports whether payments go through the sandbox.
func (c *Config) Sandbox() bool { return c.Development() && c.StripeSecretKey.IsZero() }
