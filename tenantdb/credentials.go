package tenantdb

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/keyring"
)

// Kind is how a store came to its database.
type Kind string

// The kinds. Managed databases are made by Stoa, the others are the merchant's.
const (
	Managed        Kind = "managed"
	KindPostgreSQL Kind = "postgresql"
	KindMySQL      Kind = "mysql"
	KindSupabase   Kind = "supabase"
)

// TLSMode says how the connection to a database server is protected.
type TLSMode string

// The TLS modes. There is none that encrypts without verifying: it would
// protect from nobody who can redirect the connection.
const (
	TLSVerify  TLSMode = "verify-full" // the default
	TLSDisable TLSMode = "disable"     // plaintext, by explicit choice only
)

// Credentials are all it takes to reach one tenant database.
type Credentials struct {
	Kind          Kind
	Engine        EngineName
	Host          string
	Port          int
	Database      string // for SQLite the store's id, from which the file's path derives
	User          string
	Password      keyring.Secret
	TLS           TLSMode
	CACertificate string // PEM; empty means the system's roots

	// Of a Supabase project only. Validate finds the pooler; the rest is kept
	// for the store's own use.
	Pooler         Pooler
	ProjectURL     string
	AnonKey        keyring.Secret
	ServiceRoleKey keyring.Secret

	// RolePassword is that of the role that the run may make for the store: see
	// Isolate. Planned before the run begins, it is the same however often the
	// run's steps are done. Empty once the store has its role or needs none.
	RolePassword keyring.Secret
}

// ManagedSQLite returns the credentials of a store's embedded database.
func ManagedSQLite(store stoa.StoreID) Credentials {
	return Credentials{Kind: Managed, Engine: SQLite, Database: store.String()}
}

// defaultPorts are used when a connection string names none.
var defaultPorts = map[EngineName]int{PostgreSQL: 5432, MySQL: 3306}

// Validate checks credentials given field by field and fills in the
// defaults. Every fault is reported at once.
func (c *Credentials) Validate() error { return c.validate(SupabaseRules{}) }

func (c *Credentials) validate(rules SupabaseRules) error {
	if c.Port == 0 {
		c.Port = defaultPorts[c.Engine]
	}
	if c.TLS == "" {
		c.TLS = TLSVerify
	}
	var faults stoa.Invalid
	if defaultPorts[c.Engine] == 0 {
		// An embedded database is Stoa's to name: it could be another store's.
		faults.Add("type", "must be %q, %q or %q", KindPostgreSQL, KindMySQL, KindSupabase)
	}
	c.checkHost(&faults)
	if c.Port < 1 || c.Port > 65535 {
		faults.Add("port", "must be between 1 and 65535")
	}
	for field, value := range map[string]string{"database": c.Database, "user": c.User, "password": c.Password.Reveal()} {
		switch {
		case value == "":
			faults.Add(field, "is required")
		case len(value) > 1024 || strings.ContainsRune(value, 0):
			faults.Add(field, "is not usable: at most 1024 bytes, none of them NUL")
		}
	}
	if c.TLS != TLSVerify && c.TLS != TLSDisable {
		faults.Add("tls.mode", "must be %q or %q", TLSVerify, TLSDisable)
	}
	c.checkCA(&faults)
	if c.Kind == KindPostgreSQL && rules.serve(*c) {
		c.Kind = KindSupabase // pasted as PostgreSQL, and held to the same rules
	}
	if c.Pooler = NoPooler; c.Kind == KindSupabase {
		rules.check(c, &faults)
	} else if c.ProjectURL != "" || !c.AnonKey.IsZero() || !c.ServiceRoleKey.IsZero() {
		faults.Add("type", "must be %q to keep a project's address and keys", KindSupabase)
	}
	slices.SortFunc(faults, func(a, b stoa.FieldError) int { return strings.Compare(a.Field, b.Field) })
	return faults.Err()
}

// checkHost lets through one DNS name or IP address: no list, no socket path.
func (c *Credentials) checkHost(faults *stoa.Invalid) {
	c.Host = strings.TrimSuffix(strings.TrimPrefix(c.Host, "["), "]")
	switch {
	case c.Host == "":
		faults.Add("host", "is required")
	case len(c.Host) > 253 || !isHostName(c.Host) && !isAddress(c.Host):
		faults.Add("host", "must be one host name or IP address")
	}
}

func isHostName(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool {
		ok := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_'
		return !ok
	}) < 0
}

func isAddress(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == ""
}

func (c *Credentials) checkCA(faults *stoa.Invalid) {
	if c.CACertificate == "" {
		return
	}
	if c.TLS == TLSDisable {
		faults.Add("tls.caCertificate", "has no use when tls.mode is %q", TLSDisable)
	}
	if len(c.CACertificate) > 64<<10 || !x509.NewCertPool().AppendCertsFromPEM([]byte(c.CACertificate)) {
		faults.Add("tls.caCertificate", "must be one or more PEM certificates, at most 64 KiB")
	}
}

// schemes that introduce a connection string, by engine.
var schemes = map[EngineName][]string{
	PostgreSQL: {"postgres", "postgresql"},
	MySQL:      {"mysql", "mariadb"},
	Supabase:   {"postgresql", "postgres"},
}

// ParseConnectionString reads "postgres://user:password@host:port/database"
// or "mysql://…". Only the TLS mode may follow as a parameter; everything
// else is refused by name, since drivers give some parameters the power to
// read files or to reach other hosts. The string itself never appears in an
// error: it holds the password.
func ParseConnectionString(engine EngineName, raw keyring.Secret) (Credentials, error) {
	return parseConnectionString(engine, raw, SupabaseRules{})
}

func parseConnectionString(engine EngineName, raw keyring.Secret, rules SupabaseRules) (Credentials, error) {
	const field = "connectionString"
	var faults stoa.Invalid
	if schemes[engine] == nil {
		faults.Add("type", "takes no connection string")
		return Credentials{}, faults.Err()
	}
	form := schemes[engine][0] + "://user:password@host:port/database"
	u, err := url.Parse(strings.TrimSpace(raw.Reveal()))
	switch {
	case err != nil:
		faults.Add(field, "cannot be read; the form is %s, with special characters in the password percent-encoded", form)
	case !slices.Contains(schemes[engine], u.Scheme):
		faults.Add(field, "must begin with %s://", strings.Join(schemes[engine], ":// or "))
	case u.User == nil, u.Opaque != "", u.Fragment != "", strings.Count(u.Path, "/") != 1,
		// A bare / or ? in the password ends the host part early: what looks
		// like a path or a parameter may then be the rest of the password.
		strings.Contains(u.EscapedPath()+u.RawQuery, "@"):
		faults.Add(field, "must have the form %s, with special characters in the password percent-encoded", form)
	}
	if err := faults.Err(); err != nil {
		return Credentials{}, err
	}
	c := Credentials{Kind: Kind(engine), Engine: engine, Host: u.Hostname(), Database: u.Path[1:], User: u.User.Username()}
	if engine == Supabase {
		c.Engine = PostgreSQL
	}
	password, _ := u.User.Password()
	c.Password = keyring.NewSecret(password)
	if p := u.Port(); p != "" {
		if c.Port, err = strconv.Atoi(p); err != nil || c.Port == 0 {
			faults.Add(field, "has a port that is not between 1 and 65535")
		}
	}
	c.TLS = parseTLSParameter(u.RawQuery, field, &faults)
	if err := faults.Err(); err != nil {
		return Credentials{}, err
	}
	if err := prefixFields(c.validate(rules), field); err != nil {
		return Credentials{}, err
	}
	return c, nil
}

// prefixFields makes faults point at the connection string they came from.
func prefixFields(err error, field string) error {
	var e *stoa.Error
	if !errors.As(err, &e) {
		return err
	}
	var faults stoa.Invalid
	for _, f := range e.Fields {
		faults.Add(field, "%s %s", f.Field, f.Message)
	}
	return faults.Err()
}

// tlsWords maps the words that PostgreSQL and MySQL clients use for TLS
// modes. Those that would encrypt without verifying are read as the strict mode.
var tlsWords = map[string]TLSMode{
	"disable": TLSDisable, "disabled": TLSDisable, "false": TLSDisable,
	"require": TLSVerify, "required": TLSVerify, "true": TLSVerify,
	"verify-ca": TLSVerify, "verify_ca": TLSVerify, "verify-full": TLSVerify, "verify_identity": TLSVerify,
}

func parseTLSParameter(rawQuery, field string, faults *stoa.Invalid) TLSMode {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		faults.Add(field, "has parameters that cannot be read")
		return ""
	}
	mode := TLSMode("")
	for key, values := range query {
		if !slices.Contains([]string{"sslmode", "ssl-mode", "tls"}, strings.ToLower(key)) {
			faults.Add(field, "parameter %.40q is not allowed; only sslmode may be given", key)
			continue
		}
		word, known := tlsWords[strings.ToLower(values[0])]
		if !known || len(values) > 1 || mode != "" {
			faults.Add(field, "sslmode must be given once, as verify-full or disable")
			continue
		}
		mode = word
	}
	return mode
}

// sealed is what is encrypted into the master database. It is the only form
// in which the password is written out.
type sealed struct {
	Kind          Kind       `json:"kind"`
	Engine        EngineName `json:"engine"`
	Host          string     `json:"host,omitempty"`
	Port          int        `json:"port,omitempty"`
	Database      string     `json:"database"`
	User          string     `json:"user,omitempty"`
	Password      string     `json:"password,omitempty"`
	TLS           TLSMode    `json:"tls,omitempty"`
	CACertificate string     `json:"caCertificate,omitempty"`

	Pooler         Pooler `json:"pooler,omitempty"`
	ProjectURL     string `json:"projectUrl,omitempty"`
	AnonKey        string `json:"anonKey,omitempty"`
	ServiceRoleKey string `json:"serviceRoleKey,omitempty"`

	RolePassword string `json:"rolePassword,omitempty"`
}

// seal encrypts c for one store: the envelope does not open for another.
func (c Credentials) seal(ring *keyring.Ring, store stoa.StoreID) (string, error) {
	plain, err := json.Marshal(sealed{ //nolint:gosec // the one place where the password is written out, to be encrypted
		c.Kind, c.Engine, c.Host, c.Port, c.Database, c.User, c.Password.Reveal(), c.TLS, c.CACertificate,
		c.Pooler, c.ProjectURL, c.AnonKey.Reveal(), c.ServiceRoleKey.Reveal(), c.RolePassword.Reveal(),
	})
	if err != nil {
		return "", err
	}
	return ring.Seal(plain, sealOwner(store.String()))
}

func unseal(ring *keyring.Ring, store stoa.StoreID, envelope string) (Credentials, error) {
	plain, err := ring.Open(envelope, sealOwner(store.String()))
	if err != nil {
		return Credentials{}, err
	}
	var s sealed
	if err := json.Unmarshal(plain, &s); err != nil {
		return Credentials{}, errors.New("credentials cannot be read") // the cause would quote them
	}
	return Credentials{
		s.Kind, s.Engine, s.Host, s.Port, s.Database, s.User, keyring.NewSecret(s.Password), s.TLS, s.CACertificate,
		s.Pooler, s.ProjectURL, keyring.NewSecret(s.AnonKey), keyring.NewSecret(s.ServiceRoleKey), keyring.NewSecret(s.RolePassword),
	}, nil
}

func sealOwner(store string) string { return "store_databases/" + store }
