package tenantdb_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func supabase(change func(*credential.Credentials)) credential.Credentials {
	c := credential.Credentials{
		Kind: credential.KindSupabase, Engine: credential.PostgreSQL, Host: "db." + ref + ".supabase.co", Port: 5432,
		Database: "postgres", User: "postgres", Password: keyring.NewSecret(marker), TLS: credential.TLSVerify,
	}
	change(&c)
	return c
}

func TestParseSupabase(t *testing.T) {
	t.Parallel()
	pooled := func(host string, port int, mode credential.Pooler) credential.Credentials {
		return supabase(func(c *credential.Credentials) { c.Host, c.Port, c.User, c.Pooler = host, port, "postgres."+ref, mode })
	}
	const pooler = "aws-0-eu-central-1.pooler.supabase.com"
	for raw, want := range map[string]credential.Credentials{
		"postgresql://postgres:" + marker + "@db." + ref + ".supabase.co:5432/postgres":                   supabase(func(*credential.Credentials) {}),
		"postgres://postgres:" + marker + "@db." + ref + ".supabase.co/postgres?sslmode=require":          supabase(func(*credential.Credentials) {}),
		"postgresql://postgres:" + marker + "@DB." + strings.ToUpper(ref) + ".Supabase.co.:5432/postgres": supabase(func(*credential.Credentials) {}),
		"postgresql://postgres:" + marker + "@db." + ref + ".supabase.co:6543/postgres": supabase(func(c *credential.Credentials) {
			c.Port, c.Pooler = 6543, credential.TransactionPooler // the project's own pooler
		}),
		"postgresql://postgres." + ref + ":" + marker + "@" + pooler + ":5432/postgres": pooled(pooler, 5432, credential.SessionPooler),
		"postgresql://postgres." + ref + ":" + marker + "@" + pooler + ":6543/postgres": pooled(pooler, 6543, credential.TransactionPooler),
		"postgresql://shop.owner." + ref + ":" + marker + "@" + pooler + ":6543/postgres": supabase(func(c *credential.Credentials) {
			c.Host, c.Port, c.User, c.Pooler = pooler, 6543, "shop.owner."+ref, credential.TransactionPooler
		}),
	} {
		got, err := credential.ParseConnectionString(credential.Supabase, keyring.NewSecret(raw))
		if err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		if diff := cmp.Diff(want, got, sameSecret); diff != "" {
			t.Errorf("%s: %s", raw, diff)
		}
	}
}

func TestSupabaseRefusesStrangers(t *testing.T) {
	t.Parallel()
	const pooler = "aws-0-eu-central-1.pooler.supabase.com"
	for _, tt := range []struct{ user, host, message string }{
		{"postgres", "db.example.com", "host must be"},
		{"postgres", "127.0.0.1", "host must be"},
		{"postgres", "supabase.co", "host must be"},
		{"postgres", ref + ".supabase.co", "host must be"},
		{"postgres", "db." + ref + ".supabase.co.example.com", "host must be"},
		{"postgres", "db." + ref + ".evilsupabase.co", "host must be"},
		{"postgres." + ref, "evilpooler.supabase.com", "host must be"},
		{"postgres." + ref, "pooler.supabase.com.example.com", "host must be"},
		{"postgres", "db.short.supabase.co", "20 small letters"},
		{"postgres", "db.x." + ref + ".supabase.co", "20 small letters"},
		{"postgres", "db." + ref + "1.supabase.co", "20 small letters"},
		{"postgres", "db." + ref + ".supabase.co:5433", "port must be 5432, or 6543"},
		{"postgres", pooler, "user must end"},
		{ref, pooler, "user must end"},
		{"postgres." + ref[1:], pooler, "user must end"},
		{"postgres." + strings.ToUpper(ref), pooler, "user must end"},
		{"postgres." + ref + ".x", pooler, "user must end"},
		{"postgres." + ref, pooler + ":1234", "port must be 5432, or 6543"},
		{"postgres." + ref, pooler + ":5432,db." + ref + ".supabase.co:5432", "host must be one"},
	} {
		c, err := credential.ParseConnectionString(credential.Supabase, keyring.NewSecret("postgres://"+tt.user+":"+marker+"@"+tt.host+"/postgres"))
		var e *stoa.Error
		if !errors.As(err, &e) || e.Code != stoa.InvalidRequest || !strings.Contains(fmt.Sprint(e.Fields), tt.message) {
			t.Errorf("%s at %s: got %+v, %v, want %q", tt.user, tt.host, c, err, tt.message)
		}
		if strings.Contains(fmt.Sprintf("%v %+v", err, c), marker) {
			t.Errorf("password in %v", err)
		}
	}
}

func TestSupabaseProject(t *testing.T) {
	t.Parallel()
	long := keyring.NewSecret(strings.Repeat("k", 4097))
	for _, tt := range []struct {
		name   string
		change func(*credential.Credentials)
		want   []string
	}{
		{"nothing", func(*credential.Credentials) {}, nil},
		{"everything", func(c *credential.Credentials) {
			c.ProjectURL, c.AnonKey, c.ServiceRoleKey = "https://"+ref+".supabase.co", keyring.NewSecret("eyJh.bGci.Oi-_"), keyring.NewSecret("sb_secret_x")
		}, nil},
		{"final slash", func(c *credential.Credentials) { c.ProjectURL = "https://" + ref + ".supabase.co/" }, nil},
		{"no TLS", func(c *credential.Credentials) { c.ProjectURL = "http://" + ref + ".supabase.co" }, []string{"projectUrl"}},
		{"elsewhere", func(c *credential.Credentials) { c.ProjectURL = "https://" + ref + ".example.com" }, []string{"projectUrl"}},
		{"suffix", func(c *credential.Credentials) { c.ProjectURL = "https://" + ref + ".supabase.co.example.com" }, []string{"projectUrl"}},
		{"user", func(c *credential.Credentials) { c.ProjectURL = "https://" + ref + ".supabase.co@example.com" }, []string{"projectUrl"}},
		{"port", func(c *credential.Credentials) { c.ProjectURL = "https://" + ref + ".supabase.co:8443" }, []string{"projectUrl"}},
		{"path", func(c *credential.Credentials) { c.ProjectURL = "https://" + ref + ".supabase.co/rest" }, []string{"projectUrl"}},
		{"no URL", func(c *credential.Credentials) { c.ProjectURL = ":%" }, []string{"projectUrl"}},
		{"another project", func(c *credential.Credentials) { c.ProjectURL = "https://" + ref[1:] + "z.supabase.co" }, []string{"projectUrl"}},
		{"long keys", func(c *credential.Credentials) { c.AnonKey, c.ServiceRoleKey = long, long }, []string{"anonKey", "serviceRoleKey"}},
		{"two lines", func(c *credential.Credentials) { c.AnonKey = keyring.NewSecret("a\r\nb") }, []string{"anonKey"}},
		{"not Supabase's", func(c *credential.Credentials) {
			c.Kind, c.Host, c.AnonKey = credential.KindPostgreSQL, "db.example.com", keyring.NewSecret("k")
		}, []string{"type"}},
		{"not PostgreSQL", func(c *credential.Credentials) { c.Engine = credential.MySQL }, []string{"type"}},
	} {
		c := supabase(tt.change)
		err := c.Validate()
		var got []string
		var e *stoa.Error
		if errors.As(err, &e) {
			for _, f := range e.Fields {
				got = append(got, f.Field)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v %s", tt.name, err, diff)
		}
	}
}

func needPooler(t *testing.T) {
	t.Helper()
	if os.Getenv(tenantdbtest.PgBouncerEnv) == "" {
		t.Skip("needs PgBouncer")
	}
}

// TestMigrationTakesTheSessionPooler checks that only a migration behind the
// transaction pooler uses the session pooler.
func TestMigrationTakesTheSessionPooler(t *testing.T) {
	t.Parallel()
	needPooler(t)
	c := tenantdbtest.Create(t, credential.Supabase)
	if c.Pooler != credential.TransactionPooler {
		t.Fatalf("the pooler is %q", c.Pooler)
	}
	var mu sync.Mutex
	dialled := map[string]int{}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		mu.Lock()
		dialled[address]++
		mu.Unlock()
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	engines := tenantdb.NewEngines(tenantdb.Options{Supabase: tenantdbtest.SupabaseRules()})
	migrating, err := tenantdb.OpenWith(engines, c, dial)
	testkit.Must(t, err)
	defer migrating.Close() //nolint:errcheck // nothing is pending
	_, err = migrating.Migrate(t.Context())
	testkit.Must(t, err)
	if diff := cmp.Diff(map[string]int{address(t, tenantdbtest.PgBouncerSessionEnv): 1}, dialled); diff != "" {
		t.Errorf("migration: %s", diff)
	}
	clear(dialled)
	db, err := engines[credential.Supabase].Open(c, dial, new(tenantdb.SessionState))
	testkit.Must(t, err)
	defer db.Close() //nolint:errcheck // nothing is pending
	testkit.Must(t, db.PingContext(t.Context()))
	if diff := cmp.Diff(map[string]int{address(t, tenantdbtest.PgBouncerEnv): 1}, dialled); diff != "" {
		t.Errorf("query: %s", diff)
	}
}

func address(t *testing.T, env string) string {
	t.Helper()
	u, err := url.Parse(os.Getenv(env))
	testkit.Must(t, err)
	return u.Host
}

// TestSessionPooler checks that a session pooler accepts everything that
// PostgreSQL accepts.
func TestSessionPooler(t *testing.T) {
	t.Parallel()
	needPooler(t)
	c := tenantdbtest.Create(t, credential.Supabase)
	c.Port = tenantdbtest.SupabaseRules().SessionPort
	m := tenantdb.NewManager(nil, nil, tenantdb.Options{Supabase: tenantdbtest.SupabaseRules()})
	defer m.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // nothing is leased
	testkit.Must(t, m.Validate(&c))
	if c.Pooler != credential.SessionPooler {
		t.Fatalf("the pooler is %q", c.Pooler)
	}
	keepsTypes(t, c)
	_, err := tenantdbtest.Open(t, c).Migrate(t.Context())
	testkit.Must(t, err)
}

// TestNoSessionBehindTransactionPooler checks that no query behind a
// transaction pooler depends on the session state of an earlier query. With
// many clients on few sessions, it would find another client's state.
func TestNoSessionBehindTransactionPooler(t *testing.T) {
	t.Parallel()
	needPooler(t)
	c := tenantdbtest.Create(t, credential.Supabase)
	db := things(t, c)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 20 {
				var n int
				if err := db.Get(t.Context(), &n, `SELECT n FROM things WHERE n = ?`, 1+i%2); err != nil || n != 1+i%2 {
					t.Errorf("got %d, %v", n, err)
				}
				if err := exec(t, db, `UPDATE things SET n = n WHERE name = ?`, "one"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var prepared []string
	testkit.Must(t, db.Select(t.Context(), &prepared, `SELECT statement FROM pg_prepared_statements`))
	if len(prepared) != 0 {
		t.Errorf("statements stay prepared: %q", prepared)
	}
}

// poolerError returns a server that sends a pooler's error to each client.
func poolerError(code, message string) func(net.Conn) {
	return func(c net.Conn) {
		b := pgproto3.NewBackend(c, c)
		_, _ = b.ReceiveStartupMessage()
		b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message})
		_ = b.Flush()
	}
}

func TestPoolerFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code, message string
		want          stoa.Code
		says          string
	}{
		{"XX000", "(ENOTFOUND) tenant/user postgres.x not found", stoa.DatabaseUnreachable, "no such project"},
		{"XX000", "(EMAXCONNSESSION) max clients reached", stoa.DatabaseUnreachable, "transaction pooler"},
		{"XX000", "(EMAXCONN) max clients reached", stoa.DatabaseUnreachable, "no more connections"},
		{"XX000", "(ESSLREQUIRED) SSL connection is required", stoa.DatabaseTLSFailed, "insists on TLS"},
		{"XX000", "(EADDRNOTALLOWED) address not in tenant allow_list: 192.0.2.1", stoa.DatabaseUnreachable, "network restrictions"},
		{"XX000", "(ECIRCUITBREAKER) too many authentication failures", stoa.DatabaseAuthFailed, "two minutes"},
		{"XX000", "(ESOMETHINGNEW) words", stoa.DatabaseUnreachable, "does not answer"},
		{"28P01", "password authentication failed", stoa.DatabaseAuthFailed, "refuses this user"},
		// The code counts only at the position that the protocol defines.
		{"XX000", "trouble (ESSLREQUIRED) x", stoa.DatabaseUnreachable, "does not answer"},
		{"28P01", "(EMAXCONN) x", stoa.DatabaseAuthFailed, "refuses this user"},
	} {
		t.Run(tt.code+" "+tt.message, func(t *testing.T) {
			t.Parallel()
			c := at(t, credential.PostgreSQL, credential.TLSDisable, poolerError(tt.code, tt.message))
			c.Kind = credential.KindSupabase
			err := tenantdbtest.Open(t, c).Ping(t.Context())
			checkFault(t, err, tt.want, c)
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}

// TestPoolerFaultsAreSupabasesOnly checks that the codes are recognised only
// from Supabase's poolers, and that an internal error within a query is treated
// as an error of the query.
func TestPoolerFaultsAreSupabasesOnly(t *testing.T) {
	t.Parallel()
	engines := tenantdb.NewEngines(tenantdb.Options{})
	coded := &pgconn.PgError{Code: "XX000", Message: "(ESSLREQUIRED) x"}
	if got := engines[credential.PostgreSQL].Fault(coded); got != nil {
		t.Errorf("PostgreSQL: %v", got)
	}
	if got := engines[credential.Supabase].Fault(&pgconn.PgError{Code: "XX000", Message: "cache lookup failed"}); got != nil {
		t.Errorf("no code: %v", got)
	}
}

// TestUnreachableDirectHost checks the remedy for a project's own host that
// cannot be reached. Such a host often has IPv6 only.
func TestUnreachableDirectHost(t *testing.T) {
	t.Parallel()
	rules := credential.SupabaseRules{DirectDomain: "supabase.invalid"}
	m := tenantdb.NewManager(nil, nil, tenantdb.Options{Supabase: rules})
	defer m.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // nothing is leased
	for host, advised := range map[string]bool{"db." + ref + ".supabase.invalid": true, "a.pooler.supabase.invalid": false} {
		c := supabase(func(c *credential.Credentials) { c.Host = host })
		db, err := m.OpenUnleased(c)
		testkit.Must(t, err)
		err = db.Ping(t.Context())
		checkFault(t, err, stoa.DatabaseUnreachable, c)
		if strings.Contains(err.Error(), "session pooler") != advised {
			t.Errorf("%s: %v", host, err)
		}
		testkit.Must(t, db.Close())
	}
}
