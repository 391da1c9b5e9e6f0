// Package config holds the settings: how they are given, their validation, the rules
// for production, and what they mean as options of the other packages.
package config

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// Config holds all settings. Each can be given as a flag, in the environment, or in
// stoa.yaml under the flag's name.
type Config struct {
	Env         string         `name:"env" env:"STOA_ENV" enum:"development,production" default:"development" help:"development or production. In production nothing is generated or assumed." group:"config"`
	DataDir     string         `name:"data-dir" env:"STOA_DATA_DIR" default:"./stoa-data" help:"Embedded databases and, in development, keys." placeholder:"DIR" group:"config"`
	MasterDBURL keyring.Secret `name:"master-db-url" env:"MASTER_DB_URL" help:"postgres://… or sqlite:PATH. Unless told, development has SQLite in the data directory." placeholder:"URL" group:"config"`
	// The pooler itself is at MasterDBURL.
	MasterDBSessionURL keyring.Secret `name:"master-db-session-url" env:"MASTER_DB_SESSION_URL" help:"postgres://… of the server itself, if MASTER_DB_URL is a pooler in transaction mode; for what needs a session." placeholder:"URL" group:"config"`

	EncryptionKey keyring.Secret `name:"encryption-key" env:"ENCRYPTION_KEY" help:"Keys for stored credentials: id:base64, …; the first encrypts. Made once in development." placeholder:"KEYS" group:"config"`
	JWTSecret     keyring.Secret `name:"jwt-secret" env:"JWT_SECRET" help:"Keys that sign access tokens, in the same form." placeholder:"KEYS" group:"config"`
	JWTExpiresIn  time.Duration  `name:"jwt-expires-in" env:"JWT_EXPIRES_IN" default:"15m" help:"Lifetime of an access token." placeholder:"TIME" group:"config"`

	Listen        string   `name:"listen" env:"STOA_LISTEN" default:"127.0.0.1" help:"Address to listen on." placeholder:"IP" group:"config"`
	Port          int      `name:"port" env:"PORT" default:"3000" help:"Port to listen on; 0 takes a free one." group:"config"`
	PrivateListen string   `name:"private-listen" env:"STOA_PRIVATE_LISTEN" help:"Address with a port for /metrics, /health, /ask, /debug/pprof, /healthz and /readyz, such as 127.0.0.1:9090; keep it from the public. Unless told, there is none." placeholder:"IP:PORT" group:"config"`
	PrivateHosts  []string `name:"private-hosts" env:"STOA_PRIVATE_HOSTS" help:"Names with a dot by which the private listener may be asked, such as stoa.internal; addresses and names without a dot always may." placeholder:"NAME" group:"config"`
	BaseDomain    string   `name:"base-domain" env:"STOA_BASE_DOMAIN" default:"localhost" help:"Stores live at <slug>.<this>. Production needs it." placeholder:"NAME" group:"config"`
	BaseURL       string   `name:"base-url" env:"STOA_BASE_URL" help:"The platform's public address. Unless told, http://localhost:<port> in development." placeholder:"URL" group:"config"`

	HTTP
	Stopping
	Quotas
	Retention
	Backups
	Tracing

	DNSServer string `name:"dns-server" env:"STOA_DNS_SERVER" help:"DNS server that custom hostnames are looked up at. Unless told, the system's." placeholder:"HOST:PORT" group:"config"`

	AllowNetworks  []string `name:"allow-networks" env:"STOA_ALLOW_NETWORKS" help:"Private networks where tenant databases and webhook endpoints may be, as CIDR. Development allows loopback." placeholder:"CIDR" group:"config"`
	SupabaseCA     string   `name:"supabase-ca" env:"STOA_SUPABASE_CA" help:"PEM file of the authorities that sign Supabase's certificates; its own ones are not among the system's." placeholder:"FILE" group:"config"`
	ConnsPerServer int      `name:"connections-per-server" env:"STOA_CONNECTIONS_PER_SERVER" default:"90" help:"Connections to one tenant database server at most, from this process." group:"config"`
	ConnsPerStore  int      `name:"connections-per-store" env:"STOA_CONNECTIONS_PER_STORE" default:"8" help:"Connections of one store at most, from this process." group:"config"`
	AnswerMemory   int      `name:"answer-memory" env:"STOA_ANSWER_MEMORY" default:"256" help:"Memory, in MiB, of answers that are read from stores' databases or wait for clients that read slowly; one store gets a sixteenth, at least 16." placeholder:"MIB" group:"config"`
	MaxEmbedded    int      `name:"embedded-open" env:"STOA_EMBEDDED_OPEN" default:"200" help:"Embedded (SQLite) store databases kept open at most; fewer where the limit of open files is low." group:"config"`

	ManagedDatabaseURL   keyring.Secret `name:"managed-database-url" env:"STOA_MANAGED_DATABASE_URL" help:"postgres://… or mysql://… of a server whose user may create databases and roles: managed stores get theirs there. Unless told, an embedded (SQLite) one." placeholder:"URL" group:"config"`
	ManagedDatabaseCA    string         `name:"managed-database-ca" env:"STOA_MANAGED_DATABASE_CA" help:"PEM file of the authority that signed that server's certificate, if the system does not know it." placeholder:"FILE" group:"config"`
	ServeStale           time.Duration  `name:"serve-stale" env:"STOA_SERVE_STALE" default:"1h" help:"While the master database does not answer, stores are served by what was last read of them, if it is not older than this; 0s serves none." placeholder:"TIME" group:"config"`
	MoveKeep             time.Duration  `name:"move-keep" env:"STOA_MOVE_KEEP" default:"24h" help:"How long a store that was moved to another database can be moved back." placeholder:"TIME" group:"config"`
	DeletionGrace        time.Duration  `name:"deletion-grace" env:"STOA_DELETION_GRACE" default:"720h" help:"How long a deleted store can be restored before it is gone for good." placeholder:"TIME" group:"config"`
	TenantMigrations     string         `name:"tenant-migrations" env:"STOA_TENANT_MIGRATIONS" help:"Folder with custom migrations of store databases: sqlite/, postgres/, mysql/ in goose's form. They run after the built-in ones." placeholder:"DIR" group:"config"`
	HoldTenantMigrations bool           `name:"hold-tenant-migrations" env:"STOA_HOLD_TENANT_MIGRATIONS" help:"Leave the migration of store databases to 'stoa tenants migrate'." group:"config"`
	ProvisioningClaim    time.Duration  `name:"provisioning-claim" env:"STOA_PROVISIONING_CLAIM" default:"15s" help:"How long a provisioning run waits for an execution that gives no sign of life. A process that ended is noticed within seconds, whatever is set here." placeholder:"TIME" group:"config"`

	StripeSecretKey     keyring.Secret `name:"stripe-secret-key" env:"STRIPE_SECRET_KEY" help:"Secret or restricted API key: credits are sold through Stripe. Unless told, development has a sandbox and production sells none." placeholder:"KEY" group:"config"`
	StripeWebhookSecret keyring.Secret `name:"stripe-webhook-secret" env:"STRIPE_WEBHOOK_SECRET" help:"Signing secret of the webhook endpoint at <base-url>/api/webhooks/stripe." placeholder:"SECRET" group:"config"`
	StripeURL           string         `name:"stripe-url" env:"STOA_STRIPE_URL" help:"Address of a stand-in for Stripe; in development only." placeholder:"URL" group:"config"`

	SupabaseClientID     string         `name:"supabase-oauth-client-id" env:"SUPABASE_OAUTH_CLIENT_ID" help:"Client id of your OAuth application at Supabase, whose callback is <base-url>/api/supabase/callback: owners connect their projects through it. Unless told, only by connection string." placeholder:"ID" group:"config"`
	SupabaseClientSecret keyring.Secret `name:"supabase-oauth-client-secret" env:"SUPABASE_OAUTH_CLIENT_SECRET" help:"Its secret." placeholder:"SECRET" group:"config"`
	SupabaseURL          string         `name:"supabase-url" env:"STOA_SUPABASE_URL" help:"Address of Supabase's Management API, or of a stand-in; in production https only. Unless told, https://api.supabase.com." placeholder:"URL" group:"config"`
	SupabasePooler       string         `name:"supabase-pooler" env:"STOA_SUPABASE_POOLER" help:"Where a stand-in's session and transaction pooler are; in development only." placeholder:"HOST:PORT,PORT" group:"config"`

	CreditPrice int64  `name:"credit-price" env:"STOA_CREDIT_PRICE" default:"1" help:"Price of one credit in the currency's minor unit as Stripe counts it; in ISK and UGX a multiple of 100, in BHD, JOD, KWD, OMR and TND of 10." group:"config"`
	Currency    string `name:"currency" env:"STOA_CURRENCY" default:"USD" help:"Currency credits are sold in (ISO 4217), one in which Stripe takes payments." placeholder:"CODE" group:"config"`

	SMTPURL  keyring.Secret `name:"smtp-url" env:"SMTP_URL" help:"Mail server: smtps://user:password@host, or smtp://… with STARTTLS; without TLS only on this machine. Unless told, development writes mail into files." placeholder:"URL" group:"config"`
	MailFrom string         `name:"mail-from" env:"STOA_MAIL_FROM" help:"Sender of mail. Unless told, Stoa <no-reply@(base domain)>." placeholder:"ADDRESS" group:"config"`

	LogLevel  slog.Level `name:"log-level" env:"STOA_LOG_LEVEL" default:"info" help:"debug, info, warn or error." group:"config"`
	LogFormat string     `name:"log-format" env:"STOA_LOG_FORMAT" enum:"auto,text,json" default:"auto" help:"text, json or auto: text in development, json in production." group:"config"`
}

// localDomain is the default of STOA_BASE_DOMAIN, for development.
const localDomain = "localhost"

// Development reports whether the platform runs for development.
func (c *Config) Development() bool { return c.Env == "development" }

// Faults returns every fault, by the setting's environment variable.
func (c *Config) Faults() []Defect {
	var faults []Defect
	fault := func(name, format string, args ...any) {
		faults = append(faults, Defect{Name: name, text: fmt.Sprintf(format, args...), Remedy: "correct it: its flag, the environment or stoa.yaml"})
	}
	c.checkMaster(fault)
	c.checkAddresses(fault)
	c.checkLimits(fault)
	c.checkStripe(fault)
	c.checkSupabase(fault)
	c.HTTP.check(fault)
	c.Stopping.check(fault)
	c.Quotas.check(fault)
	c.Retention.check(fault)
	c.checkBackups(fault)
	c.Tracing.check(fault)
	c.checkServices(fault)
	c.checkKeys(fault)
	if !c.Development() {
		faults = append(faults, c.productionFaults()...)
	}
	slices.SortFunc(faults, func(a, b Defect) int { return strings.Compare(a.Error(), b.Error()) })
	return faults
}

// checkMaster checks the form of the master's URLs. The faults do not repeat them: they may
// contain a password.
func (c *Config) checkMaster(fault func(name, format string, args ...any)) {
	isPostgres := func(url string) bool {
		return strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
	}
	sessions := c.MasterSessionURL()
	if sessions != "" && !isPostgres(sessions) {
		fault("MASTER_DB_SESSION_URL", "must be postgres://…: the address of the database server itself")
	}
	file, isSQLite := strings.CutPrefix(c.MasterURL(), "sqlite:")
	switch {
	case isPostgres(c.MasterURL()):
	case sessions != "":
		fault("MASTER_DB_URL", "must be postgres://… where MASTER_DB_SESSION_URL is set: the address of the pooler before that server")
	case !isSQLite || file == "":
		fault("MASTER_DB_URL", "must be postgres://… or sqlite:PATH")
	}
}

// checkAddresses checks where the server listens and by which names it is reached.
func (c *Config) checkAddresses(fault func(name, format string, args ...any)) {
	if c.Port < 0 || c.Port > 65535 {
		fault("PORT", "must be between 0 and 65535")
	}
	if _, err := netip.ParseAddr(c.Listen); err != nil {
		fault("STOA_LISTEN", "must be an IP address, such as 127.0.0.1 or 0.0.0.0")
	}
	if _, err := netip.ParseAddrPort(c.PrivateListen); c.PrivateListen != "" && err != nil {
		fault("STOA_PRIVATE_LISTEN", "must be an IP address with a port, such as 127.0.0.1:9090")
	}
	for _, h := range c.PrivateHosts {
		if name, err := hostnames.Normalize(h); err != nil || name != h {
			fault("STOA_PRIVATE_HOSTS", "%q is no host: name it in lower case, without scheme or port, as DNS has it", h)
		}
	}
	if c.JWTExpiresIn < time.Minute || c.JWTExpiresIn > 24*time.Hour {
		fault("JWT_EXPIRES_IN", "must be between 1m and 24h")
	}
	if name, err := hostnames.Normalize(c.BaseDomain); err != nil || name != c.BaseDomain {
		fault("STOA_BASE_DOMAIN", "must be a domain name in lower case, without scheme, port or final dot, as DNS has it (xn--… for other scripts)")
	}
	if u, err := url.Parse(c.BaseURL); c.BaseURL != "" && (err != nil || u.Host == "" || !stoa.HasValidPort(u) || u.Scheme != "http" && u.Scheme != "https") {
		fault("STOA_BASE_URL", "must be an http or https address")
	}
	if host, port, err := net.SplitHostPort(c.DNSServer); c.DNSServer != "" && (err != nil || host == "" || !stoa.IsPort(port)) {
		fault("STOA_DNS_SERVER", "must be a host with a port, such as 127.0.0.1:53")
	}
}

// checkLimits checks the limits of connections, memory and time.
func (c *Config) checkLimits(fault func(name, format string, args ...any)) {
	if c.ConnsPerServer < 2 {
		fault("STOA_CONNECTIONS_PER_SERVER", "must be at least 2, which a migration needs")
	}
	if c.ConnsPerStore < 2 || c.ConnsPerStore > c.ConnsPerServer {
		fault("STOA_CONNECTIONS_PER_STORE", "must be at least 2, which a migration needs, and at most STOA_CONNECTIONS_PER_SERVER")
	}
	if c.AnswerMemory < 64 || c.AnswerMemory > 1<<20 {
		fault("STOA_ANSWER_MEMORY", "must be between 64 and %d", 1<<20)
	}
	if c.MaxEmbedded < 1 {
		fault("STOA_EMBEDDED_OPEN", "must be at least 1")
	}
	if c.ProvisioningClaim < 500*time.Millisecond || c.ProvisioningClaim > 10*time.Minute {
		fault("STOA_PROVISIONING_CLAIM", "must be between 500ms and 10m")
	}
	if c.ServeStale < 0 || c.ServeStale > 7*24*time.Hour {
		fault("STOA_SERVE_STALE", "must be between 0s and 168h")
	}
	if c.MoveKeep < time.Minute || c.MoveKeep > 30*24*time.Hour {
		fault("STOA_MOVE_KEEP", "must be between 1m and 720h")
	}
	if c.DeletionGrace < 0 || c.DeletionGrace > 10*365*24*time.Hour {
		fault("STOA_DELETION_GRACE", "must be between 0s and 87600h")
	}
}

// checkServices checks prices, networks, certificates, the server for managed
// databases, mail and custom migrations.
func (c *Config) checkServices(fault func(name, format string, args ...any)) {
	if err := c.price().Check(); err != nil {
		fault("STOA_CREDIT_PRICE", "%v", err)
	}
	if err := payments.CheckCurrency(c.price().Currency); err != nil {
		fault("STOA_CURRENCY", "%v", err)
	}
	if _, err := c.AllowedNetworks(); err != nil {
		fault("STOA_ALLOW_NETWORKS", "%v", err)
	}
	if _, err := c.supabaseRoots(); err != nil {
		fault("STOA_SUPABASE_CA", "%v", err)
	}
	if _, err := c.ManagedServer(); err != nil {
		fault("STOA_MANAGED_DATABASE_URL", "%v", err)
	}
	if _, err := pemFile(c.ManagedDatabaseCA); err != nil {
		fault("STOA_MANAGED_DATABASE_CA", "%v", err)
	}
	if _, err := mail.New(mail.Options{URL: c.SMTPURL, From: "no-reply@example.com"}); err != nil {
		fault("SMTP_URL", "cannot be used: %v", err)
	}
	if _, err := mail.New(mail.Options{From: c.MailFrom}); c.MailFrom != "" && err != nil {
		fault("STOA_MAIL_FROM", "cannot be used: %v", err)
	}
	if _, err := tenantdb.LoadCustomMigrations(c.TenantMigrations); err != nil {
		fault("STOA_TENANT_MIGRATIONS", "cannot be used: %v", err)
	}
}

// checkKeys checks the form of the keys. A missing key is a fault in production only.
func (c *Config) checkKeys(fault func(name, format string, args ...any)) {
	for name, key := range map[string]keyring.Secret{"ENCRYPTION_KEY": c.EncryptionKey, "JWT_SECRET": c.JWTSecret} {
		if key.IsZero() {
			continue
		}
		if _, err := keyring.Parse(key); err != nil {
			fault(name, "cannot be used: %v", err)
		}
	}
}

// checkStripe checks the settings of Stripe. Events cannot be verified without the
// secret, nor looked up without the key.
func (c *Config) checkStripe(fault func(name, format string, args ...any)) {
	key := c.StripeSecretKey.Reveal()
	switch {
	case key == "" && !c.StripeWebhookSecret.IsZero():
		fault("STRIPE_SECRET_KEY", "is required with STRIPE_WEBHOOK_SECRET")
	case key != "" && c.StripeWebhookSecret.IsZero():
		fault("STRIPE_WEBHOOK_SECRET", "is required with STRIPE_SECRET_KEY; Stripe shows it with the webhook endpoint")
	case key != "" && !strings.HasPrefix(key, "sk_") && !strings.HasPrefix(key, "rk_"):
		fault("STRIPE_SECRET_KEY", "must be a secret (sk_…) or restricted (rk_…) key")
	}
	if u, err := url.Parse(c.StripeURL); c.StripeURL != "" && (err != nil || u.Host == "" || !stoa.HasValidPort(u) || u.Scheme != "http" && u.Scheme != "https") {
		fault("STOA_STRIPE_URL", "must be an http or https address")
	}
}

// checkSupabase checks the settings of Supabase. Tokens are sent to its address, and
// stores' passwords to its poolers.
func (c *Config) checkSupabase(fault func(name, format string, args ...any)) {
	if c.SupabaseClientID == "" && !c.SupabaseClientSecret.IsZero() {
		fault("SUPABASE_OAUTH_CLIENT_ID", "is required with SUPABASE_OAUTH_CLIENT_SECRET")
	}
	if c.SupabaseClientID != "" && c.SupabaseClientSecret.IsZero() {
		fault("SUPABASE_OAUTH_CLIENT_SECRET", "is required with SUPABASE_OAUTH_CLIENT_ID")
	}
	u, err := url.Parse(c.SupabaseURL)
	switch {
	case c.SupabaseURL == "":
	case err != nil || u.Host == "" || !stoa.HasValidPort(u) || u.User != nil || u.RawQuery != "" || u.Scheme != "http" && u.Scheme != "https":
		fault("STOA_SUPABASE_URL", "must be an http or https address")
	}
	if _, err := c.SupabaseRules(); err != nil {
		fault("STOA_SUPABASE_POOLER", "%v", err)
	}
}

// MasterURL returns the URL of the master database: the setting, or SQLite in the data
// directory.
func (c *Config) MasterURL() string {
	if c.MasterDBURL.IsZero() {
		return "sqlite:" + filepath.Join(c.DataDir, "master.db")
	}
	return strings.TrimSpace(c.MasterDBURL.Reveal()) // a file of a secret ends with a new line
}

// MasterSessionURL returns the URL for sessions of a master behind a pooler in transaction mode,
// or "".
func (c *Config) MasterSessionURL() string { return strings.TrimSpace(c.MasterDBSessionURL.Reveal()) }

// MasterServerURL is MasterURL, but for a master behind a pooler in transaction mode: there it is
// the URL of the server itself.
func (c *Config) MasterServerURL() string {
	return cmp.Or(c.MasterSessionURL(), c.MasterURL())
}

// Address returns the address of the public listener.
func (c *Config) Address() string { return net.JoinHostPort(c.Listen, strconv.Itoa(c.Port)) }

// PublicURL returns the platform's public address, given the port in use.
func (c *Config) PublicURL(port int) string {
	if c.BaseURL != "" {
		return strings.TrimRight(c.BaseURL, "/")
	}
	return "http://localhost:" + strconv.Itoa(port)
}

// PlaintextBaseURL reports whether the public address has no TLS although it is not this
// machine's own.
func (c *Config) PlaintextBaseURL() bool {
	u, err := url.Parse(c.BaseURL)
	if err != nil || u.Scheme != "http" {
		return false
	}
	address, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() != localDomain && !strings.HasSuffix(u.Hostname(), "."+localDomain) && (err != nil || !address.IsLoopback())
}

// Logger returns a logger that writes to w as configured.
func (c *Config) Logger(w io.Writer) *slog.Logger { return slog.New(c.LogHandler(w)) }

// LogHandler returns the handler of Logger.
func (c *Config) LogHandler(w io.Writer) slog.Handler {
	opts := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" || c.LogFormat == "auto" && !c.Development() {
		return slog.NewJSONHandler(w, opts)
	}
	return slog.NewTextHandler(w, opts)
}
