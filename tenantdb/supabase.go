package tenantdb

import (
	"database/sql"
	"errors"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/keyring"
)

// Pooler says what stands between Stoa and a Supabase database. It follows
// from host and port.
type Pooler string

// The poolers. The zero value is none: a direct connection.
const (
	NoPooler          Pooler = ""
	SessionPooler     Pooler = "session"     // a server's session per connection
	TransactionPooler Pooler = "transaction" // another session with each transaction: it keeps no state
)

// SupabaseRules tell Supabase's servers from all others. A field left out
// has the value of Supabase's cloud; a test points them at its own pooler.
type SupabaseRules struct {
	DirectDomain    string // a project's own host is db.<ref>.<this>
	PoolerDomain    string // poolers' hosts are this or below it
	SessionPort     int    // of a pooler, and of a project's own host
	TransactionPort int
	Roots           string // PEM: trusted when credentials bring no CA; empty means the system's roots
}

// withDefaults fills in Supabase's cloud.
// Source: Supabase documentation, "Connect to your database".
func (r SupabaseRules) withDefaults() SupabaseRules {
	setDefault(&r.DirectDomain, "supabase.co")
	setDefault(&r.PoolerDomain, "pooler.supabase.com")
	setDefault(&r.SessionPort, 5432)
	setDefault(&r.TransactionPort, 6543)
	return r
}

// Parse is ParseConnectionString for a Supabase project under these rules.
func (r SupabaseRules) Parse(raw keyring.Secret) (Credentials, error) {
	pasted, err := parseConnectionString(Supabase, raw, "", r)
	return pasted.Credentials, err
}

// projectRef is how Supabase names a project.
var projectRef = regexp.MustCompile(`^[a-z]{20}$`)

// maxKeyBytes is far above the length of any API key of Supabase.
const maxKeyBytes = 4096

// check makes sure that the credentials are of one project on a server of
// Supabase, and tells the pooler from host and port.
func (r SupabaseRules) check(c *Credentials, faults *stoa.Invalid) {
	r = r.withDefaults()
	if c.Engine != PostgreSQL {
		faults.Add("type", "%q is PostgreSQL", KindSupabase)
	}
	c.Host = strings.ToLower(strings.TrimSuffix(c.Host, "."))
	ref, direct := r.directRef(c.Host)
	switch {
	case direct && !projectRef.MatchString(ref):
		faults.Add("host", "must be db.<project ref>.%s; the ref has 20 small letters", r.DirectDomain)
	case direct:
	case !isUnder(c.Host, r.PoolerDomain):
		faults.Add("host", "must be db.<project ref>.%s or below %s", r.DirectDomain, r.PoolerDomain)
	default:
		if ref = c.User[strings.LastIndex(c.User, ".")+1:]; len(ref) == len(c.User) || !projectRef.MatchString(ref) {
			faults.Add("user", "must end in .<project ref> at a pooler, such as postgres.abcdefghijklmnopqrst")
		}
	}
	switch {
	case c.Port == r.TransactionPort:
		c.Pooler = TransactionPooler
	case c.Port != r.SessionPort:
		faults.Add("port", "must be %d, or %d for the transaction pooler", r.SessionPort, r.TransactionPort)
	case direct:
		c.Pooler = NoPooler
	default:
		c.Pooler = SessionPooler
	}
	r.checkProject(c, ref, faults)
}

// serve reports whether c leads to a project on a server of Supabase's.
func (r SupabaseRules) serve(c Credentials) bool {
	r = r.withDefaults()
	host := strings.ToLower(strings.TrimSuffix(c.Host, "."))
	if c.Engine != PostgreSQL || c.Port != r.SessionPort && c.Port != r.TransactionPort {
		return false
	}
	if ref, direct := r.directRef(host); direct {
		return projectRef.MatchString(ref)
	}
	_, ref, named := strings.Cut(c.User, ".")
	return named && isUnder(host, r.PoolerDomain) && projectRef.MatchString(ref[strings.LastIndex(ref, ".")+1:])
}

// NewSupabase returns the credentials of a role in a project, through the
// transaction pooler at host. It fails with database_host_forbidden when that
// is not one of Supabase's.
func (m *Manager) NewSupabase(ref, host, database, role string, password keyring.Secret) (Credentials, error) {
	rules := m.opts.Supabase.withDefaults()
	c := Credentials{
		Kind: KindSupabase, Engine: PostgreSQL, Host: host, Port: rules.TransactionPort, Database: database,
		User: role + "." + ref, Password: password, ProjectURL: "https://" + ref + "." + rules.DirectDomain,
	}
	if err := m.Validate(&c); err != nil {
		return Credentials{}, stoa.Errorf(stoa.DatabaseHostForbidden,
			"The pooler that is named for this project is not one of Supabase's. Nothing was sent there; tell the operator.").WithCause(err)
	}
	return c, nil
}

// ProjectRef returns the ref of the Supabase project that c is of, or "".
func (m *Manager) ProjectRef(c Credentials) string {
	if c.Kind != KindSupabase {
		return ""
	}
	if ref, direct := m.opts.Supabase.withDefaults().directRef(c.Host); direct {
		return ref
	}
	return c.User[strings.LastIndex(c.User, ".")+1:]
}

// Parse is ParseConnectionString under this manager's options, for a server
// whose certificate the authorities in ca have signed, or with "" the system's.
func (m *Manager) Parse(engine EngineName, raw keyring.Secret, ca string) (Pasted, error) {
	return parseConnectionString(engine, raw, ca, m.opts.Supabase)
}

// checkProject looks at what is kept beside the connection for the store's
// own use.
func (r SupabaseRules) checkProject(c *Credentials, ref string, faults *stoa.Invalid) {
	if c.ProjectURL != "" {
		u, err := url.Parse(c.ProjectURL)
		switch {
		case err != nil || len(c.ProjectURL) > 1024 || u.Scheme != "https" || u.User != nil || u.Port() != "" ||
			strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || !isUnder(strings.ToLower(u.Host), r.DirectDomain):
			faults.Add("projectUrl", "must be https://<project ref>.%s", r.DirectDomain)
		case strings.ToLower(u.Host) != ref+"."+r.DirectDomain:
			faults.Add("projectUrl", "is of another project than the connection")
		}
	}
	for field, key := range map[string]keyring.Secret{"anonKey": c.AnonKey, "serviceRoleKey": c.ServiceRoleKey} {
		unusable := func(b rune) bool { return b <= ' ' || b > '~' }
		if len(key.Reveal()) > maxKeyBytes || strings.ContainsFunc(key.Reveal(), unusable) {
			faults.Add(field, "must be one of the project's API keys: at most %d letters and signs, no spaces", maxKeyBytes)
		}
	}
}

// directRef returns what stands for the project's ref in its own host.
func (r SupabaseRules) directRef(host string) (ref string, ok bool) {
	if ref, ok = strings.CutPrefix(host, "db."); !ok {
		return "", false
	}
	return strings.CutSuffix(ref, "."+r.DirectDomain)
}

func isUnder(host, domain string) bool { return host == domain || strings.HasSuffix(host, "."+domain) }

// supabaseEngine is PostgreSQL as Supabase runs it: behind poolers that speak
// in codes of their own, under roots of its own.
type supabaseEngine struct {
	postgresEngine
	rules SupabaseRules
}

// Open implements Engine, with Supabase's roots unless c brings others.
func (e supabaseEngine) Open(c Credentials, dial DialFunc, state *sessionState) (*sql.DB, error) {
	if c.CACertificate == "" {
		c.CACertificate = e.rules.Roots
	}
	return e.postgresEngine.Open(c, dial, state)
}

// Session goes through the session pooler of the same host: a migration is
// more than one transaction.
func (e supabaseEngine) Session(c Credentials, dial DialFunc, state *sessionState) (*sql.DB, error) {
	return e.Open(e.throughSession(c), dial, state)
}

func (e supabaseEngine) migrator(c Credentials, state *sessionState) migrator {
	return e.postgresEngine.migrator(e.throughSession(c), state)
}

func (e supabaseEngine) throughSession(c Credentials) Credentials {
	if c.Pooler == TransactionPooler {
		c.Pooler, c.Port = SessionPooler, e.rules.SessionPort
	}
	return c
}

func (supabaseEngine) sessions(c Credentials) bool { return c.Pooler != TransactionPooler }

// poolerCode begins the message of a pooler's own fault, which has no
// SQLSTATE to itself.
var poolerCode = regexp.MustCompile(`^\(([A-Z_]+)\) `)

// Fault reads the poolers' codes, then PostgreSQL's.
// Source: Supavisor, error codes.
func (e supabaseEngine) Fault(err error) *stoa.Error {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		fault := e.postgresEngine.Fault(err)
		var connectErr *pgconn.ConnectError
		if fault != nil && fault.Code == stoa.DatabaseUnreachable && errors.As(err, &connectErr) {
			if _, direct := e.rules.directRef(connectErr.Config.Host); direct {
				return stoa.Errorf(stoa.DatabaseUnreachable, "The project's own database host does not answer; unless the project pays for IPv4, it has only IPv6. "+
					"Use the connection string of the session pooler.").WithCause(markTransient(err))
			}
		}
		return fault
	}
	if m := poolerCode.FindStringSubmatch(pgErr.Message); m != nil && pgErr.Code == "XX000" {
		return poolerFault(m[1], err)
	}
	return e.postgresEngine.Fault(err)
}

func poolerFault(code string, err error) *stoa.Error {
	switch code {
	case "ENOTFOUND":
		return stoa.Errorf(stoa.DatabaseUnreachable, "Supabase's pooler knows no such project or user. "+
			"Copy the connection string again from the project's page, and see that the project is not paused.").WithCause(err)
	case "EMAXCONNSESSION":
		return stoa.Errorf(stoa.DatabaseUnreachable, "All connections of the session pooler are in use. "+
			"Connect through the transaction pooler, or raise the project's pool size.").WithCause(markTransient(err))
	case "EMAXCONN":
		return faultOverloaded.because(err)
	case "ESSLREQUIRED":
		return faultTLSRequired.because(err)
	case "EADDRNOTALLOWED":
		return stoa.Errorf(stoa.DatabaseUnreachable, "The project's network restrictions do not admit this platform. "+
			"Add its address in the project's database settings.").WithCause(err)
	case "ECIRCUITBREAKER":
		// Whoever tries again by itself must not: each failure prolongs it.
		fault := stoa.Errorf(stoa.DatabaseAuthFailed, "Supabase refuses all log-ins for two minutes after too many that failed. "+
			"Correct user and password, wait, and connect again.")
		fault.RetryAfter = 2 * time.Minute
		return fault.WithCause(err)
	}
	return unreachable(err)
}
