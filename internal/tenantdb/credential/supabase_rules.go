package credential

import (
	"cmp"
	"net/url"
	"regexp"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
)

// Pooler is the kind of pooler between Stoa and a database. For a Supabase
// database it follows from host and port.
type Pooler string

// These constants are the kinds of poolers. The zero value is none: a direct
// connection.
const (
	NoPooler          Pooler = ""
	SessionPooler     Pooler = "session"     // one server session per connection
	TransactionPooler Pooler = "transaction" // another server session for each transaction: it keeps no state
)

// SupabaseRules distinguish Supabase's servers from all others. An empty field
// has the value of Supabase's cloud; a test sets the values of its own pooler.
type SupabaseRules struct {
	DirectDomain    string // a project's own host is db.<ref>.<DirectDomain>
	PoolerDomain    string // a pooler's host is this domain or below it
	SessionPort     int    // of a pooler and of a project's own host
	TransactionPort int
	Roots           string // PEM: trusted if the credentials contain no CA; empty means the system's roots
}

// WithDefaults returns the rules with the values of Supabase's cloud in empty
// fields.
// Source: Supabase documentation, "Connect to your database".
func (r SupabaseRules) WithDefaults() SupabaseRules {
	r.DirectDomain = cmp.Or(r.DirectDomain, "supabase.co")
	r.PoolerDomain = cmp.Or(r.PoolerDomain, "pooler.supabase.com")
	r.SessionPort = cmp.Or(r.SessionPort, 5432)
	r.TransactionPort = cmp.Or(r.TransactionPort, 6543)
	return r
}

// Parse does the same as ParseConnectionString for a Supabase project under
// these rules.
func (r SupabaseRules) Parse(raw keyring.Secret) (Credentials, error) {
	pasted, err := ParsePasted(Supabase, raw, "", r)
	return pasted.Credentials, err
}

// projectRef matches Supabase's name of a project.
var projectRef = regexp.MustCompile(`^[a-z]{20}$`)

// maxKeyBytes is the maximum length of an API key, far above that of any key of
// Supabase.
const maxKeyBytes = 4096

// Check checks that the credentials belong to a project on one of Supabase's
// servers, and derives the pooler from host and port.
func (r SupabaseRules) Check(c *Credentials, faults *stoa.Invalid) {
	r = r.WithDefaults()
	if c.Engine != PostgreSQL {
		faults.Add("type", "%q is PostgreSQL", KindSupabase)
	}
	c.Host = strings.ToLower(strings.TrimSuffix(c.Host, "."))
	ref, direct := r.DirectRef(c.Host)
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

// serve reports whether c leads to a project on one of Supabase's servers.
func (r SupabaseRules) serve(c Credentials) bool {
	r = r.WithDefaults()
	host := strings.ToLower(strings.TrimSuffix(c.Host, "."))
	if c.Engine != PostgreSQL || c.Port != r.SessionPort && c.Port != r.TransactionPort {
		return false
	}
	if ref, direct := r.DirectRef(host); direct {
		return projectRef.MatchString(ref)
	}
	_, ref, named := strings.Cut(c.User, ".")
	return named && isUnder(host, r.PoolerDomain) && projectRef.MatchString(ref[strings.LastIndex(ref, ".")+1:])
}

// checkProject checks the fields that are stored in addition to the connection,
// for the store's own use.
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

// DirectRef returns the part of a project's own host that is the project's ref.
func (r SupabaseRules) DirectRef(host string) (ref string, ok bool) {
	if ref, ok = strings.CutPrefix(host, "db."); !ok {
		return "", false
	}
	return strings.CutSuffix(ref, "."+r.DirectDomain)
}

// IsSupabase reports whether a host is one of Supabase's database servers.
func (r SupabaseRules) IsSupabase(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	_, direct := r.DirectRef(host)
	return direct || isUnder(host, r.PoolerDomain)
}

func isUnder(host, domain string) bool { return host == domain || strings.HasSuffix(host, "."+domain) }
