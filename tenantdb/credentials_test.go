package tenantdb_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/tenantdb"
)

// marker stands for a password, or for the middle of one.
const marker = "correct-horse-7"

// ref is the name of a Supabase project.
const ref = "abcdefghijklmnopqrst"

// sameSecret compares what a Secret hides; cmp still prints it redacted.
var sameSecret = cmp.Comparer(func(a, b keyring.Secret) bool { return a.Reveal() == b.Reveal() })

func TestParseConnectionString(t *testing.T) {
	t.Parallel()
	pg := func(change func(*tenantdb.Credentials)) tenantdb.Credentials {
		c := tenantdb.Credentials{
			Kind: tenantdb.KindPostgreSQL, Engine: tenantdb.PostgreSQL, Host: "db.example.com", Port: 5432,
			Database: "shop", User: "anna", Password: keyring.NewSecret(marker), TLS: tenantdb.TLSVerify,
		}
		change(&c)
		return c
	}
	my := func(c *tenantdb.Credentials) {
		c.Kind, c.Engine, c.Port = tenantdb.KindMySQL, tenantdb.MySQL, 3306
	}
	tests := []struct {
		name string
		raw  string
		want tenantdb.Credentials
	}{
		{"defaults", "postgres://anna:" + marker + "@db.example.com/shop", pg(func(*tenantdb.Credentials) {})},
		{"long scheme", "postgresql://anna:" + marker + "@db.example.com/shop", pg(func(*tenantdb.Credentials) {})},
		{"scheme in capitals", "POSTGRES://anna:" + marker + "@db.example.com/shop", pg(func(*tenantdb.Credentials) {})},
		{"spaces around", " \n postgres://anna:" + marker + "@db.example.com/shop\n", pg(func(*tenantdb.Credentials) {})},
		{"empty port", "postgres://anna:" + marker + "@db.example.com:/shop", pg(func(*tenantdb.Credentials) {})},
		{"port", "postgres://anna:" + marker + "@db.example.com:6543/shop", pg(func(c *tenantdb.Credentials) { c.Port = 6543 })},
		{"IPv4", "postgres://anna:" + marker + "@192.0.2.7/shop", pg(func(c *tenantdb.Credentials) { c.Host = "192.0.2.7" })},
		{"IPv6", "postgres://anna:" + marker + "@[2001:db8::1]:6543/shop", pg(func(c *tenantdb.Credentials) { c.Host, c.Port = "2001:db8::1", 6543 })},
		{"percent-encoded password", "postgres://anna:%40%3A%2F%3F%23%25" + marker + "@db.example.com/shop", pg(func(c *tenantdb.Credentials) { c.Password = keyring.NewSecret("@:/?#%" + marker) })},
		{"bare @ and : in the password", "postgres://anna:a@b:" + marker + "@db.example.com/shop", pg(func(c *tenantdb.Credentials) { c.Password = keyring.NewSecret("a@b:" + marker) })},
		{"percent-encoded names", "postgres://an%20na:" + marker + "@db.example.com/sh%40op", pg(func(c *tenantdb.Credentials) { c.User, c.Database = "an na", "sh@op" })},
		{"MySQL", "mysql://anna:" + marker + "@db.example.com/shop", pg(my)},
		{"MariaDB", "mariadb://anna:" + marker + "@db.example.com/shop?ssl-mode=VERIFY_IDENTITY", pg(my)},
	}
	for mode, words := range map[tenantdb.TLSMode][]string{
		tenantdb.TLSDisable: {"sslmode=disable", "sslmode=DISABLE", "ssl-mode=DISABLED", "tls=false", "SSLMODE=disable"},
		tenantdb.TLSVerify: {
			"sslmode=require", "sslmode=verify-ca", "sslmode=verify-full", "ssl-mode=REQUIRED",
			"ssl-mode=VERIFY_CA", "ssl-mode=VERIFY_IDENTITY", "tls=true",
		},
	} {
		for _, word := range words {
			tests = append(tests, struct {
				name string
				raw  string
				want tenantdb.Credentials
			}{word, "postgres://anna:" + marker + "@db.example.com/shop?" + word, pg(func(c *tenantdb.Credentials) { c.TLS = mode })})
		}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := tenantdb.ParseConnectionString(tt.want.Engine, keyring.NewSecret(tt.raw))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, sameSecret); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseConnectionStringRefuses(t *testing.T) {
	t.Parallel()
	const (
		form    = "percent-encoded"
		unknown = "is not allowed"
		once    = "must be given once"
	)
	base := "postgres://anna:" + marker + "@db.example.com/shop"
	tests := []struct {
		name, raw, message string
	}{
		{"empty", "", "must begin with"},
		{"wrong scheme", "mysql://anna:" + marker + "@db.example.com/shop", "must begin with"},
		{"another wrong scheme", "https://anna:" + marker + "@db.example.com/shop", "must begin with"},
		{"keywords", "host=db.example.com user=anna password=" + marker + " dbname=shop", "must begin with"},
		{"driver's DSN", "anna:" + marker + "@tcp(db.example.com)/shop", "must begin with"},
		{"opaque", "postgres:anna:" + marker + "@db.example.com/shop", form},
		{"no user", "postgres://db.example.com/shop", form},
		{"no password", "postgres://anna@db.example.com/shop", "password is required"},
		{"empty user", "postgres://:" + marker + "@db.example.com/shop", "user is required"},
		{"empty host", "postgres://anna:" + marker + "@/shop", "host is required"},
		{"empty host with port", "postgres://anna:" + marker + "@:5432/shop", "host is required"},
		{"two hosts", "postgres://anna:" + marker + "@a.example.com,b.example.com/shop", "host must be one"},
		{"two hosts with ports", "postgres://anna:" + marker + "@a.example.com:1,b.example.com:2/shop", "host must be one"},
		{"unix socket", "postgres://anna:" + marker + "@%2Fvar%2Frun%2Fpostgresql/shop", "cannot be read"},
		{"unix socket as parameter", "postgres://anna:" + marker + "@/shop?host=/var/run/postgresql", unknown},
		{"unix socket of MySQL", "postgres://anna:" + marker + "@unix(/tmp/mysql.sock)/shop", form},
		{"zone", "postgres://anna:" + marker + "@[fe80::1%25eth0]/shop", "host must be one"},
		{"no database", "postgres://anna:" + marker + "@db.example.com", form},
		{"empty database", "postgres://anna:" + marker + "@db.example.com/", "database is required"},
		{"two path segments", base + "/more", form},
		{"encoded slash", base + "%2Fmore", form},
		{"port 0", "postgres://anna:" + marker + "@db.example.com:0/shop", "port"},
		{"port 99999", "postgres://anna:" + marker + "@db.example.com:99999/shop", "port must be between"},
		{"enormous port", "postgres://anna:" + marker + "@db.example.com:99999999999999999999/shop", "port"},
		{"port in letters", "postgres://anna:" + marker + "@db.example.com:five/shop", "cannot be read"},
		{"NUL in the database", base + "%00", "database is not usable"},
		{"NUL in the password", "postgres://anna:" + marker + "%00@db.example.com/shop", "password is not usable"},
		{"fragment", base + "#top", form},
		{"bad escape", base + "%zz", "cannot be read"},
		{"semicolon", base + "?sslmode=disable;options=x", "cannot be read"},
		{"sslmode twice", base + "?sslmode=disable&sslmode=verify-full", once},
		{"two names for sslmode", base + "?sslmode=disable&tls=true", once},
		{"sslmode empty", base + "?sslmode=", once},
		{"sslmode prefer", base + "?sslmode=prefer", once},
		{"sslmode allow", base + "?sslmode=allow", once},
		{"tls skip-verify", base + "?tls=skip-verify", once},
		{"tls preferred", base + "?tls=preferred", once},
	}
	for _, key := range []string{
		"options", "service", "servicefile", "passfile", "sslrootcert", "sslcert", "sslkey", "target_session_attrs", "host", "user", "dbname",
		"password", "default_query_exec_mode", "allowAllFiles", "allowCleartextPasswords", "allowOldPasswords", "allowFallbackToPlaintext",
		"multiStatements", "interpolateParams", "serverPubKey", "time_zone", "no_such_thing",
		"maxAllowedPacket", "net", "charset", "collation", "compress", "loc", "connectionAttributes", "allowNativePasswords", "sql_mode",
		"hostaddr", "port", "application_name", "search_path", "connect_timeout", "sslpassword", "sslsni", "sslnegotiation", "sslcertmode",
		"krbsrvname", "krbspn", "require_auth", "channel_binding", "min_protocol_version", "statement_cache_capacity", "pool_max_conns",
	} {
		tests = append(tests, struct{ name, raw, message string }{key, base + "?sslmode=disable&" + key + "=x", fmt.Sprintf("parameter %q %s", key, unknown)})
	}
	// Passwords that need encoding and were not encoded.
	for _, password := range []string{
		marker + "/x", "12/" + marker, "12/x?" + marker, "12/x?" + marker + "=", "12/x?a&" + marker + "&b",
		marker + "?x", "12?" + marker, "#" + marker, "12/x#" + marker, "%" + marker, "[" + marker, "12/@" + marker, "p@h/db?" + marker, "p@h/" + marker,
	} {
		tests = append(tests, struct{ name, raw, message string }{"password " + password, "postgres://anna:" + password + "@db.example.com/shop", form})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := tenantdb.ParseConnectionString(tenantdb.PostgreSQL, keyring.NewSecret(tt.raw))
			var e *stoa.Error
			if !errors.As(err, &e) || e.Code != stoa.InvalidRequest {
				t.Fatalf("got %+v, %v, want invalid_request", c, err)
			}
			found := false
			for _, f := range e.Fields {
				found = found || strings.Contains(f.Message, tt.message)
				if f.Field != "connectionString" {
					t.Errorf("fault of field %q", f.Field)
				}
			}
			if !found {
				t.Errorf("no fault says %q: %v", tt.message, e.Fields)
			}
			if text := fmt.Sprintf("%v %+v %+v", err, *e, c); strings.Contains(text, marker) {
				t.Errorf("password in %s", text)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(nil)
	server.Close()
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	tests := []struct {
		name   string
		change func(*tenantdb.Credentials)
		want   []string // the fields at fault
	}{
		{"good", func(*tenantdb.Credentials) {}, nil},
		{"IPv6", func(c *tenantdb.Credentials) { c.Host = "[2001:db8::1]" }, nil},
		{"certificate", func(c *tenantdb.Credentials) { c.CACertificate = certificate }, nil},
		{"longest", func(c *tenantdb.Credentials) { c.User = strings.Repeat("u", 1024) }, nil},
		{"everything missing", func(c *tenantdb.Credentials) {
			*c = tenantdb.Credentials{Engine: tenantdb.PostgreSQL}
		}, []string{"database", "host", "password", "user"}},
		{"everything wrong", func(c *tenantdb.Credentials) {
			*c = tenantdb.Credentials{
				Engine: tenantdb.SQLite, Host: "a,b", Port: 65536, Database: "a\x00", User: strings.Repeat("u", 1025),
				Password: keyring.NewSecret(marker + "\x00"), TLS: "prefer", CACertificate: "none",
			}
		}, []string{"database", "host", "password", "port", "tls.caCertificate", "tls.mode", "type", "user"}},
		{"negative port", func(c *tenantdb.Credentials) { c.Port = -1 }, []string{"port"}},
		{"socket path", func(c *tenantdb.Credentials) { c.Host = "/var/run/postgresql" }, []string{"host"}},
		{"abstract socket", func(c *tenantdb.Credentials) { c.Host = "@stoa" }, []string{"host"}},
		{"host with port", func(c *tenantdb.Credentials) { c.Host = "db.example.com:5432" }, []string{"host"}},
		{"host with user", func(c *tenantdb.Credentials) { c.Host = "anna@db.example.com" }, []string{"host"}},
		{"host with zone", func(c *tenantdb.Credentials) { c.Host = "fe80::1%eth0" }, []string{"host"}},
		{"host of two lines", func(c *tenantdb.Credentials) { c.Host = "a\nb" }, []string{"host"}},
		{"only brackets", func(c *tenantdb.Credentials) { c.Host = "[]" }, []string{"host"}},
		{"long host", func(c *tenantdb.Credentials) { c.Host = strings.Repeat("a", 254) }, []string{"host"}},
		{"certificate without TLS", func(c *tenantdb.Credentials) { c.CACertificate, c.TLS = certificate, tenantdb.TLSDisable }, []string{"tls.caCertificate"}},
		{"certificate too long", func(c *tenantdb.Credentials) { c.CACertificate = strings.Repeat(certificate, 100) }, []string{"tls.caCertificate"}},
		// An embedded database is never a merchant's to name: it could be another store's.
		{"SQLite", func(c *tenantdb.Credentials) { c.Engine = tenantdb.SQLite }, []string{"type"}},
		{"no engine", func(c *tenantdb.Credentials) { c.Engine = "" }, []string{"type"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := tenantdb.Credentials{
				Kind: tenantdb.KindPostgreSQL, Engine: tenantdb.PostgreSQL, Host: "db.example.com", Port: 5432,
				Database: "shop", User: "anna", Password: keyring.NewSecret(marker),
			}
			tt.change(&c)
			err := c.Validate()
			var e *stoa.Error
			if errors.As(err, &e) != (len(tt.want) > 0) {
				t.Fatal(err)
			}
			if err == nil {
				if c.TLS != tenantdb.TLSVerify || strings.ContainsAny(c.Host, "[]") {
					t.Errorf("not normalised: %+v", c)
				}
				return
			}
			var got []string
			for _, f := range e.Fields {
				got = append(got, f.Field)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if strings.Contains(fmt.Sprintf("%v %+v", err, *e), marker) {
				t.Errorf("password in %v", err)
			}
		})
	}
}

func newRing(t testing.TB) *keyring.Ring {
	t.Helper()
	ring, err := keyring.Parse(keyring.Generate("1"))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// full has a value in every field.
func full() tenantdb.Credentials {
	return tenantdb.Credentials{
		Kind: tenantdb.KindSupabase, Engine: tenantdb.PostgreSQL, Host: "db.example.com", Port: 6543, Database: "shop", User: "anna",
		Password: keyring.NewSecret(marker), TLS: tenantdb.TLSVerify, CACertificate: "certificate",
		Pooler: tenantdb.TransactionPooler, ProjectURL: "https://" + ref + ".supabase.co",
		AnonKey: keyring.NewSecret("anon-" + marker), ServiceRoleKey: keyring.NewSecret("service-" + marker),
		RolePassword: keyring.NewSecret("role-" + marker),
	}
}

func TestSeal(t *testing.T) {
	t.Parallel()
	ring, store, other := newRing(t), stoa.NewID[stoa.StoreID](), stoa.NewID[stoa.StoreID]()
	c := full()
	for i, v := 0, reflect.ValueOf(c); i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("field %s is not tried", v.Type().Field(i).Name)
		}
	}
	envelope, err := c.Seal(ring, store)
	if err != nil {
		t.Fatal(err)
	}
	for _, plain := range []string{marker, c.Host, c.User} {
		if strings.Contains(envelope, plain) {
			t.Errorf("%q is readable in %s", plain, envelope)
		}
	}
	got, err := tenantdb.Unseal(ring, store, envelope)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, got, sameSecret); diff != "" {
		t.Error(diff)
	}
	if _, err := tenantdb.Unseal(ring, other, envelope); !errors.Is(err, keyring.ErrTampered) {
		t.Errorf("opens for another store: %v", err)
	}
	if _, err := tenantdb.Unseal(newRing(t), store, envelope); err == nil {
		t.Error("opens with another key")
	}
}

// An envelope whose content cannot be read must not be quoted by the decoder.
func TestUnsealHidesContent(t *testing.T) {
	t.Parallel()
	ring, store := newRing(t), stoa.NewID[stoa.StoreID]()
	for _, content := range []string{marker, `{"password": "` + marker, `{"port": "` + marker + `"}`} {
		envelope, err := ring.Seal([]byte(content), "store_databases/"+store.String())
		if err != nil {
			t.Fatal(err)
		}
		_, err = tenantdb.Unseal(ring, store, envelope)
		if err == nil || strings.Contains(err.Error(), marker) {
			t.Errorf("got %v", err)
		}
	}
}

func TestCredentialsDoNotPrintPassword(t *testing.T) {
	t.Parallel()
	c := full()
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+verb+"\n", c, &c)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("connecting", "credentials", c, "pointer", &c, "password", c.Password)
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	for _, plain := range []string{marker, fmt.Sprintf("%x", marker)} {
		if strings.Contains(out.String(), plain) {
			t.Errorf("password in %s", out.String())
		}
	}
	if !strings.Contains(out.String(), "db.example.com") {
		t.Error("nothing was printed at all")
	}
}
