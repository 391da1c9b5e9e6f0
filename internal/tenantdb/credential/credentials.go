// Package credential holds the credentials of tenant databases: their forms, validation
// and encryption, connection strings as people paste them, and certificates.
package credential

import (
	"encoding/json"
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
)

// Kind is the origin of a store's database.
type Kind string

// These constants are the kinds of databases. Stoa creates managed databases;
// the others belong to the merchant: those of OwnKinds.
const (
	Managed        Kind = "managed"
	KindPostgreSQL Kind = "postgresql"
	KindMySQL      Kind = "mysql"
	KindSupabase   Kind = "supabase"
)

// OwnKinds lists the kinds of merchants' databases: of each engine with servers, by its
// name, and of Supabase.
func OwnKinds() (kinds []string) {
	for _, engine := range Servers {
		kinds = append(kinds, string(engine))
	}
	return append(kinds, string(KindSupabase))
}

// TLSMode is the protection of the connection to a database server.
type TLSMode string

// These constants are the TLS modes. No mode encrypts without verification,
// which would not protect against an attacker who can redirect the connection.
const (
	TLSVerify   TLSMode = "verify-full" // the default
	TLSVerifyCA TLSMode = "verify-ca"   // a chain to CACertificate, regardless of the name
	TLSDisable  TLSMode = "disable"     // plaintext, by explicit choice only
)

// Credentials are what Stoa needs to connect to one tenant database.
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

	// Schema is the schema of the store's tables on PostgreSQL; empty means the
	// user's own. Endpoint is Neon's name of the server, which its proxy needs.
	Schema   string
	Endpoint string

	// Pooler follows from host and port at Supabase. Elsewhere it is a guess by
	// host, port and pgbouncer=true; with NoPooler, Stoa tries to detect a
	// pooler.
	Pooler Pooler

	// These fields are set only for a Supabase project, for the store's own
	// use.
	ProjectURL     string
	AnonKey        keyring.Secret
	ServiceRoleKey keyring.Secret

	// RolePassword is the password of the role that the provisioning run may
	// create for the store: see Isolate. It is chosen before the run begins, so
	// that it stays the same if a step is repeated. It is empty once the store
	// has its role or if it needs none.
	RolePassword keyring.Secret

	// Adopt: the store's tables go beside those of others in the same database, none of
	// which has a name that the store needs. Without it the database must be empty.
	Adopt bool

	// These fields are set only for a managed database on a server.
	Reset  PasswordReset // of Password
	Reader Reader
}

// PlanRole chooses the password of the role that a run may create for the store, in a
// database of the owner's own on an engine on which a database has many owners.
func (c *Credentials) PlanRole() {
	if c.Engine == PostgreSQL && c.Kind != Managed {
		c.RolePassword = NewPassword()
	}
}

// PlanProject returns a plan: the role of these credentials will be made in the Supabase
// project with that ref, with the planned password. They lead nowhere before.
func PlanProject(ref string) Credentials {
	return Credentials{Kind: KindSupabase, Engine: PostgreSQL, Database: ref, RolePassword: NewPassword()}
}

// PlannedProject returns the ref of the project in which the role is to be made, or "" for
// credentials that are no such plan.
func (c Credentials) PlannedProject() string {
	if c.Kind != KindSupabase || c.Host != "" {
		return ""
	}
	return c.Database
}

// ManagedSQLite returns the credentials of a store's embedded database.
func ManagedSQLite(store stoa.StoreID) Credentials {
	return Credentials{Kind: Managed, Engine: SQLite, Database: store.String()}
}

// Validate checks the credentials and sets defaults. It reports all faults
// together.
func (c *Credentials) Validate() error { return c.ValidateUnder(SupabaseRules{}) }

// ValidateUnder is Validate with the rules of another Supabase.
func (c *Credentials) ValidateUnder(rules SupabaseRules) error {
	if c.Port == 0 {
		c.Port = c.Engine.facts().port
	}
	if c.TLS == "" {
		c.TLS = TLSVerify
	}
	var faults stoa.Invalid
	if c.Engine.facts().port == 0 {
		// Only Stoa may name an embedded database, because it could be another
		// store's.
		own := OwnKinds()
		last := len(own) - 1
		faults.Add("type", `must be "%s" or %q`, strings.Join(own[:last], `", "`), own[last])
	}
	c.checkHost(&faults)
	if c.Port < 1 || c.Port > 65535 {
		faults.Add("port", "must be between 1 and 65535")
	}
	for field, value := range map[string]string{"database": c.Database, "user": c.User, "password": c.Password.Reveal()} {
		switch {
		case value == "":
			faults.Add(field, "is required")
		case len(value) > 1024 || strings.ContainsRune(value, 0) || !utf8.ValidString(value):
			faults.Add(field, "is not usable: at most 1024 bytes of UTF-8, none of them NUL")
		}
	}
	if c.TLS != TLSVerify && c.TLS != TLSVerifyCA && c.TLS != TLSDisable {
		faults.Add("tls.mode", "must be %q, %q or %q", TLSVerify, TLSVerifyCA, TLSDisable)
	}
	c.checkCA(&faults)
	if c.Kind == KindPostgreSQL && rules.serve(*c) {
		c.Kind = KindSupabase // pasted as PostgreSQL, and subject to the same rules
	}
	c.checkSchema(&faults)
	if c.Adopt && !slices.Contains(Servers, EngineName(c.Kind)) {
		faults.Add("adopt", "is for a PostgreSQL, MySQL or MariaDB database of your own; leave it out")
	}
	if c.Kind == KindSupabase {
		rules.Check(c, &faults)
	} else if c.guessPooler(); c.ProjectURL != "" || !c.AnonKey.IsZero() || !c.ServiceRoleKey.IsZero() {
		faults.Add("type", "must be %q to keep a project's address and keys", KindSupabase)
	}
	slices.SortFunc(faults, func(a, b stoa.FieldError) int { return strings.Compare(a.Field, b.Field) })
	return faults.Err()
}

// checkHost accepts one DNS name or IP address. It rejects a list and a socket
// path.
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

// schemaName matches a PostgreSQL identifier that needs no escapes. The limit
// of 63 bytes is checked separately.
var schemaName = regexp.MustCompile(`^[\p{L}_][\p{L}\p{N}_$-]*$`)

// endpointName matches Neon's server names.
var endpointName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

func (c *Credentials) checkSchema(faults *stoa.Invalid) {
	if c.Kind == KindSupabase || c.Kind == Managed {
		c.Schema, c.Endpoint = "", "" // the store gets its own schema
	}
	switch {
	case c.Schema == "":
	case c.Engine != PostgreSQL:
		faults.Add("schema", "is PostgreSQL's; leave it out")
	case len(c.Schema) > 63 || !schemaName.MatchString(c.Schema) || strings.HasPrefix(c.Schema, "pg_") || c.Schema == "information_schema":
		faults.Add("schema", "must be the name of one schema: at most 63 bytes, of letters, digits, _, $ and -, and none of the server's own")
	}
	if c.Endpoint != "" && (c.Engine != PostgreSQL || !endpointName.MatchString(c.Endpoint)) {
		faults.Add("endpoint", "must be the name of an endpoint of Neon")
	}
}

// poolerPorts are the default ports of PgBouncer, which Azure and PlanetScale
// use too, and of Supavisor.
var poolerPorts = []int{6432, 6543}

// guessPooler sets the pooler that host and port suggest. The first label of a
// Neon pooler's host name ends in -pooler.
func (c *Credentials) guessPooler() {
	label, _, _ := strings.Cut(strings.ToLower(c.Host), ".")
	neon := strings.HasPrefix(label, "ep-") && strings.HasSuffix(label, "-pooler")
	switch {
	case c.Engine != PostgreSQL || c.Pooler == SessionPooler:
		c.Pooler = NoPooler
	case neon, slices.Contains(poolerPorts, c.Port):
		c.Pooler = TransactionPooler
	}
}

// sealed is the JSON form of credentials, which is encrypted and stored in the master
// database. It is the only form that contains the password.
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

	Schema         string `json:"schema,omitempty"`
	Endpoint       string `json:"endpoint,omitempty"`
	Pooler         Pooler `json:"pooler,omitempty"`
	ProjectURL     string `json:"projectUrl,omitempty"`
	AnonKey        string `json:"anonKey,omitempty"`
	ServiceRoleKey string `json:"serviceRoleKey,omitempty"`

	RolePassword string `json:"rolePassword,omitempty"`

	Adopt          bool   `json:"adopt,omitempty"`
	NextPassword   string `json:"nextPassword,omitempty"`
	Since          string `json:"since,omitempty"`
	ReaderPassword string `json:"readerPassword,omitempty"`
	NextReader     string `json:"nextReader,omitempty"`
	ReaderSince    string `json:"readerSince,omitempty"`
}

// Seal encrypts c for one store. The result cannot be decrypted for another
// store.
func (c Credentials) Seal(ring *keyring.Ring, store stoa.StoreID) (string, error) {
	plain, err := json.Marshal(sealed{
		Kind: c.Kind, Engine: c.Engine, Host: c.Host, Port: c.Port, Database: c.Database,
		User: c.User, Password: c.Password.Reveal(), TLS: c.TLS, CACertificate: c.CACertificate,
		Schema: c.Schema, Endpoint: c.Endpoint, Pooler: c.Pooler,
		ProjectURL: c.ProjectURL, AnonKey: c.AnonKey.Reveal(), ServiceRoleKey: c.ServiceRoleKey.Reveal(),
		RolePassword: c.RolePassword.Reveal(),
		Adopt:        c.Adopt,
		NextPassword: c.Reset.Next.Reveal(), Since: c.Reset.Since,
		ReaderPassword: c.Reader.Password.Reveal(), NextReader: c.Reader.Reset.Next.Reveal(), ReaderSince: c.Reader.Reset.Since,
	})
	if err != nil {
		return "", err
	}
	return ring.Seal(plain, SealOwner(store.String()))
}

// Unseal decrypts what Seal returned for the same store.
func Unseal(ring *keyring.Ring, store stoa.StoreID, envelope string) (Credentials, error) {
	plain, err := ring.Open(envelope, SealOwner(store.String()))
	if err != nil {
		return Credentials{}, err
	}
	var s sealed
	if err := json.Unmarshal(plain, &s); err != nil {
		return Credentials{}, errors.New("credentials cannot be read") // the cause would quote the credentials
	}
	return Credentials{
		Kind: s.Kind, Engine: s.Engine, Host: s.Host, Port: s.Port, Database: s.Database,
		User: s.User, Password: keyring.NewSecret(s.Password), TLS: s.TLS, CACertificate: s.CACertificate,
		Schema: s.Schema, Endpoint: s.Endpoint, Pooler: s.Pooler,
		ProjectURL: s.ProjectURL, AnonKey: keyring.NewSecret(s.AnonKey), ServiceRoleKey: keyring.NewSecret(s.ServiceRoleKey),
		RolePassword: keyring.NewSecret(s.RolePassword),
		Adopt:        s.Adopt,
		Reset:        PasswordReset{Next: keyring.NewSecret(s.NextPassword), Since: s.Since},
		Reader: Reader{
			Password: keyring.NewSecret(s.ReaderPassword),
			Reset:    PasswordReset{Next: keyring.NewSecret(s.NextReader), Since: s.ReaderSince},
		},
	}, nil
}

// SealOwner returns the additional data of a store's envelope.
func SealOwner(store string) string { return "store_databases/" + store }

// CAField is the field of a request that contains certificates.
const CAField = "tls.caCertificate"
