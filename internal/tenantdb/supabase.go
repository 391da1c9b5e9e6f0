package tenantdb

import (
	"database/sql"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
)

// NewSupabase returns the credentials of a role in a project, through the
// transaction pooler at host. It fails with database_host_forbidden if host is
// not one of Supabase's.
func (m *Manager) NewSupabase(ref, host, database, role string, password keyring.Secret) (credential.Credentials, error) {
	rules := m.opts.Supabase.WithDefaults()
	c := credential.Credentials{
		Kind: credential.KindSupabase, Engine: credential.PostgreSQL, Host: host, Port: rules.TransactionPort, Database: database,
		User: role + "." + ref, Password: password, ProjectURL: "https://" + ref + "." + rules.DirectDomain,
	}
	if err := m.Validate(&c); err != nil {
		return credential.Credentials{}, stoa.Errorf(stoa.DatabaseHostForbidden,
			"The pooler that is named for this project is not one of Supabase's. Nothing was sent there; tell the operator.").WithCause(err)
	}
	return c, nil
}

// ProjectRef returns the ref of c's Supabase project, or "".
func (m *Manager) ProjectRef(c credential.Credentials) string {
	if c.Kind != credential.KindSupabase {
		return ""
	}
	if ref, direct := m.opts.Supabase.WithDefaults().DirectRef(c.Host); direct {
		return ref
	}
	return c.User[strings.LastIndex(c.User, ".")+1:]
}

// Parse does the same as ParseConnectionString with this manager's options. The
// server's certificate must be signed by the authorities in ca or, if ca is "",
// by the system's.
func (m *Manager) Parse(engine credential.EngineName, raw keyring.Secret, ca string) (credential.Pasted, error) {
	return credential.ParsePasted(engine, raw, ca, m.opts.Supabase)
}

// supabaseEngine is PostgreSQL as Supabase runs it: behind poolers that have
// their own error codes and certificates under Supabase's own roots.
type supabaseEngine struct {
	postgresEngine
	rules credential.SupabaseRules
}

// Open implements Engine. It uses Supabase's roots unless c contains others.
func (e supabaseEngine) Open(c credential.Credentials, dial dial.Func, state *sessionState) (*sql.DB, error) {
	if c.CACertificate == "" {
		c.CACertificate = e.rules.Roots
	}
	return e.postgresEngine.Open(c, dial, state)
}

// Session implements Engine. It uses the session pooler of the same host,
// because a migration takes more than one transaction.
func (e supabaseEngine) Session(c credential.Credentials, dial dial.Func, state *sessionState) (*sql.DB, error) {
	return e.Open(e.throughSession(c), dial, state)
}

func (e supabaseEngine) migrator(c credential.Credentials, state *sessionState) migrator {
	return e.postgresEngine.migrator(e.throughSession(c), state)
}

func (e supabaseEngine) throughSession(c credential.Credentials) credential.Credentials {
	if c.Pooler == credential.TransactionPooler {
		c.Pooler, c.Port = credential.SessionPooler, e.rules.SessionPort
	}
	return c
}

func (supabaseEngine) sessions(c credential.Credentials) bool {
	return c.Pooler != credential.TransactionPooler
}

// poolerCode matches the code at the beginning of a pooler's own error message.
// Such an error has no SQLSTATE of its own.
var poolerCode = regexp.MustCompile(`^\(([A-Z_]+)\) `)

// Fault implements Engine. It reads the poolers' codes first, then
// PostgreSQL's.
// Source: Supavisor, error codes.
func (e supabaseEngine) Fault(err error) *stoa.Error {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		fault := e.postgresEngine.Fault(err)
		var connectErr *pgconn.ConnectError
		if fault != nil && fault.Code == stoa.DatabaseUnreachable && errors.As(err, &connectErr) {
			if _, direct := e.rules.DirectRef(connectErr.Config.Host); direct {
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
		// Automatic retries must stop, because each failure prolongs the
		// refusal.
		fault := stoa.Errorf(stoa.DatabaseAuthFailed, "Supabase refuses all log-ins for two minutes after too many that failed. "+
			"Correct user and password, wait, and connect again.")
		fault.RetryAfter = 2 * time.Minute
		return fault.WithCause(err)
	}
	return unreachable(err)
}
