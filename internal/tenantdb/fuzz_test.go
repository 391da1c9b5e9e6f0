package tenantdb_test

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// schemes maps each engine that accepts a connection string to its URL scheme.
var schemes = map[credential.EngineName]string{credential.PostgreSQL: "postgres", credential.MySQL: "mysql", credential.Supabase: "postgresql"}

// FuzzParseConnectionString checks that the answer does not repeat the
// password, whatever surrounds it, and that an accepted string names one host.
func FuzzParseConnectionString(f *testing.F) {
	for _, seed := range [][4]string{
		{"anna", "", "", "db.example.com/shop"},
		{"anna", "a@b/c?", "&x", "[::1]:5432/shop?sslmode=disable"},
		{"anna", "12/x?", "=1", "a,b/shop"},
		{"", "%", "#", "/var/run"},
		{"anna", "12#", "/", "h:99999/d?sslmode=disable&options=x"},
		{"postgres." + ref, "", "", "a.pooler.supabase.com:6543/postgres"},
		{"postgres", "[", "]", "db." + ref + ".supabase.co/postgres?sslmode=require"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	f.Fuzz(func(t *testing.T, user, before, after, rest string) {
		for engine, scheme := range schemes {
			raw := scheme + "://" + url.QueryEscape(user) + ":" + before + marker + after + "@" + rest
			c, err := credential.ParseConnectionString(engine, keyring.NewSecret(raw))
			if err != nil {
				refusedFor(t, err, marker)
				continue
			}
			if strings.Contains(fmt.Sprintf("%+v", c), marker) {
				t.Fatalf("password in %+v", c)
			}
			acceptable(t, engine, c)
		}
	})
}

// forms are the forms of a string that contain the password without encoding.
var forms = []string{
	"host=%[2]s user=%[1]s dbname=d password=%[3]s", "host=h password=%[3]s user=%[1]s dbname=%[2]s", "Server=h;User Id=%[1]s;Password=%[3]s;Database=%[2]s",
	"Server=h;Password={%[3]s};User Id=%[1]s;Database=%[2]s", "jdbc:postgresql://h/d?user=%[1]s&password=%[3]s&%[2]s", "jdbc:mysql://h/d?password=%[3]s&user=%[1]s%[2]s",
	"PGPASSWORD=%[3]s psql -h h -U %[1]s %[2]s", "PGPASSWORD='%[3]s' psql -h h -U %[1]s %[2]s", "mysql -h h -u %[1]s -p%[3]s %[2]s", "mysql -p'%[3]s' -h h -u %[1]s %[2]s",
	"%[1]s:%[3]s@tcp(h)/%[2]s", "psql 'host=h user=%[1]s password=%[3]s dbname=%[2]s'", "mysqlsh %[1]s:%[3]s@%[2]s", "export X=\"postgres://%[1]s:%[3]s@%[2]s\"",
}

// FuzzPasswordInForms checks the same for every other form.
func FuzzPasswordInForms(f *testing.F) {
	for _, seed := range [][4]string{
		{"anna", "", "", "shop"}, {"anna", "a ", " b", "d"}, {"anna", "a;", ";b", "d"}, {"anna", "a&", "=b", "x=y"}, {"anna", "a'", "' b=", "d"},
		{"anna", "{", "}}", "d"}, {"anna", "a -x ", "=", "d"}, {"anna", "--", " --", "h/d"}, {"anna", "[YOUR-PASSWORD", "]", "d"}, {"an na", "$(", ")", "d"}, {"a", "@h/d?", "=1&x", "h/d"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	f.Fuzz(func(t *testing.T, user, before, after, rest string) {
		for _, form := range forms {
			for engine := range schemes {
				raw := fmt.Sprintf(form, user, rest, before+marker+after)
				c, err := credential.ParseConnectionString(engine, keyring.NewSecret(raw))
				if err != nil {
					refusedFor(t, err, marker)
					continue
				}
				acceptable(t, engine, c)
			}
		}
	})
}

// FuzzConnectionString checks that any text, even one that is no connection
// string, is accepted completely or rejected in Stoa's own words.
func FuzzConnectionString(f *testing.F) {
	for _, raw := range []string{
		"", "postgres://", "host=db.example.com user=anna password=x dbname=shop", "anna:x@tcp(db.example.com)/shop", "jdbc:mysql://h/d?user=u&password=p",
		"postgres://anna:x@db.example.com:5432/shop?sslmode=verify-full", "mysql://anna:x@[2001:db8::1]:3306/shop?tls=true",
		"mariadb://a%20b:%40@db.example.com/sh%40op?ssl-mode=DISABLED", "postgresql://postgres." + ref + ":x@a.pooler.supabase.com:6543/postgres",
		"postgres://u:p@%2Fvar%2Frun/d", "postgres://u:p@a,b/d", "postgres://u:p@h/d?options=-c%20x", "postgres://u:p@h:0/d", "postgres://u:p@h%00/d", "postgres://[::1%25eth0]/",
		"postgres://u:p@h/d?schema=shop&options=endpoint%3Dep-x&pgbouncer=true&ssl={\"rejectUnauthorized\":true}", "export DATABASE_URL=\"postgres://u:p/w@h/d\"",
		"PGPASSWORD='x y' psql -h h -U u d", "mysql -h h -u u -px d", "mysqlsh --sql u:p@h/d", "Server=h;Port=1;Uid=u;Pwd={a;b};Database=d", "jdbc:mysql://h/d?user=u&password=p&useSSL=true",
		"u:p@tcp(h:1)/d?tls=true", "username = u\npassword = p\nhost = h\ndatabase = d", "`postgres://u:%zz@h/d`;", "“psql ‘host=h user=u’”", "psql 'postgres://u:p@h/d' -d 'user=x'",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		for engine := range schemes {
			c, err := credential.ParseConnectionString(engine, keyring.NewSecret(raw))
			if err == nil {
				acceptable(t, engine, c)
			} else if trimmed := strings.TrimSpace(raw); len(trimmed) > 60 { // Stoa's own words contain an example, and may contain a parameter's name
				refusedFor(t, err, trimmed)
			}
		}
	})
}

// refusedFor fails the test unless err is a fault of the input that does not
// repeat the secret.
func refusedFor(t *testing.T, err error, secret string) {
	t.Helper()
	var e *stoa.Error
	if !errors.As(err, &e) || e.Code != stoa.InvalidRequest || len(e.Fields) == 0 {
		t.Fatalf("got %#v", err)
	}
	if text := fmt.Sprintf("%v %+v", err, *e); strings.Contains(text, secret) {
		t.Fatalf("%q in %s", secret, text)
	}
}

// acceptable fails the test unless c can be used without changes: it is valid,
// has one host, and is the same after it is encoded and parsed again.
func acceptable(t *testing.T, engine credential.EngineName, c credential.Credentials) {
	t.Helper()
	valid := c
	if err := valid.Validate(); err != nil {
		t.Fatalf("%+v is not valid: %v", c, err)
	}
	if diff := cmp.Diff(c, valid, sameSecret); diff != "" {
		t.Fatalf("not normal: %s", diff)
	}
	if c.Host == "" || strings.ContainsAny(c.Host, ",/ @%\x00") || strings.Contains(c.Host, ":") && net.ParseIP(c.Host) == nil {
		t.Fatalf("host %q", c.Host)
	}
	pasted := engine == credential.PostgreSQL && c.Kind == credential.KindSupabase // a project's string connects a project, whatever type it is pasted as
	if c.Kind != credential.Kind(engine) && !pasted || c.Port < 1 || c.Port > 65535 || c.User == "" || c.Database == "" || c.Password.IsZero() || c.TLS == "" || c.CACertificate != "" {
		t.Fatalf("not whole: %+v", c)
	}
	again, err := credential.ParseConnectionString(engine, keyring.NewSecret(encode(schemes[engine], c)))
	if err != nil {
		t.Fatalf("%+v does not survive: %v", c, err)
	}
	if diff := cmp.Diff(c, again, sameSecret); diff != "" {
		t.Fatal(diff)
	}
}

// encode returns c in the canonical form.
func encode(scheme string, c credential.Credentials) string {
	settings := url.Values{"sslmode": {string(c.TLS)}}
	if c.Schema != "" {
		settings.Set("schema", c.Schema)
	}
	if c.Endpoint != "" {
		settings.Set("options", "endpoint="+c.Endpoint)
	}
	if c.Pooler == credential.TransactionPooler {
		settings.Set("pgbouncer", "true")
	}
	escape := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
	return scheme + "://" + escape(c.User) + ":" + escape(c.Password.Reveal()) + "@" + net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) +
		"/" + escape(c.Database) + "?" + settings.Encode()
}
