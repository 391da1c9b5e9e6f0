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
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// marker is part of every test password.
const marker = "correct-horse-7"

// ref is the name of a Supabase project.
const ref = "abcdefghijklmnopqrst"

// sameSecret compares the content of a Secret; cmp still prints it redacted.
var sameSecret = cmp.Comparer(func(a, b keyring.Secret) bool { return a.Reveal() == b.Reveal() })

func TestValidate(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(nil)
	server.Close()
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	tests := []struct {
		name   string
		change func(*credential.Credentials)
		want   []string // the invalid fields
	}{
		{"good", func(*credential.Credentials) {}, nil},
		{"IPv6", func(c *credential.Credentials) { c.Host = "[2001:db8::1]" }, nil},
		{"certificate", func(c *credential.Credentials) { c.CACertificate = certificate }, nil},
		{"longest", func(c *credential.Credentials) { c.User = strings.Repeat("u", 1024) }, nil},
		{"everything missing", func(c *credential.Credentials) {
			*c = credential.Credentials{Engine: credential.PostgreSQL}
		}, []string{"database", "host", "password", "user"}},
		{"everything wrong", func(c *credential.Credentials) {
			*c = credential.Credentials{
				Engine: credential.SQLite, Host: "a,b", Port: 65536, Database: "a\x00", User: strings.Repeat("u", 1025),
				Password: keyring.NewSecret(marker + "\x00"), TLS: "prefer", CACertificate: "none",
			}
		}, []string{"database", "host", "password", "port", "tls.caCertificate", "tls.mode", "type", "user"}},
		{"negative port", func(c *credential.Credentials) { c.Port = -1 }, []string{"port"}},
		{"socket path", func(c *credential.Credentials) { c.Host = "/var/run/postgresql" }, []string{"host"}},
		{"abstract socket", func(c *credential.Credentials) { c.Host = "@stoa" }, []string{"host"}},
		{"host with port", func(c *credential.Credentials) { c.Host = "db.example.com:5432" }, []string{"host"}},
		{"host with user", func(c *credential.Credentials) { c.Host = "anna@db.example.com" }, []string{"host"}},
		{"host with zone", func(c *credential.Credentials) { c.Host = "fe80::1%eth0" }, []string{"host"}},
		{"host of two lines", func(c *credential.Credentials) { c.Host = "a\nb" }, []string{"host"}},
		{"only brackets", func(c *credential.Credentials) { c.Host = "[]" }, []string{"host"}},
		{"long host", func(c *credential.Credentials) { c.Host = strings.Repeat("a", 254) }, []string{"host"}},
		{"certificate without TLS", func(c *credential.Credentials) { c.CACertificate, c.TLS = certificate, credential.TLSDisable }, []string{"tls.caCertificate"}},
		{"certificate too long", func(c *credential.Credentials) { c.CACertificate = strings.Repeat(certificate, 1000) }, []string{"tls.caCertificate"}},
		// Only Stoa may name an embedded database, because it could be another
		// store's.
		{"SQLite", func(c *credential.Credentials) { c.Engine = credential.SQLite }, []string{"type"}},
		{"no engine", func(c *credential.Credentials) { c.Engine = "" }, []string{"type"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := credential.Credentials{
				Kind: credential.KindPostgreSQL, Engine: credential.PostgreSQL, Host: "db.example.com", Port: 5432,
				Database: "shop", User: "anna", Password: keyring.NewSecret(marker),
			}
			tt.change(&c)
			err := c.Validate()
			var e *stoa.Error
			if errors.As(err, &e) != (len(tt.want) > 0) {
				t.Fatal(err)
			}
			if err == nil {
				if c.TLS != credential.TLSVerify || strings.ContainsAny(c.Host, "[]") {
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

// full returns credentials with a value in every field.
func full() credential.Credentials {
	return credential.Credentials{
		Kind: credential.KindSupabase, Engine: credential.PostgreSQL, Host: "db.example.com", Port: 6543, Database: "shop", User: "anna",
		Password: keyring.NewSecret(marker), TLS: credential.TLSVerify, CACertificate: "certificate",
		Schema: "shop", Endpoint: "ep-cool-name-123456",
		Pooler: credential.TransactionPooler, ProjectURL: "https://" + ref + ".supabase.co",
		AnonKey: keyring.NewSecret("anon-" + marker), ServiceRoleKey: keyring.NewSecret("service-" + marker),
		RolePassword: keyring.NewSecret("role-" + marker), Adopt: true,
		Reset: credential.PasswordReset{Next: keyring.NewSecret("next-" + marker), Since: "17"},
		Reader: credential.Reader{Password: keyring.NewSecret("reader-" + marker),
			Reset: credential.PasswordReset{Next: keyring.NewSecret("next-reader-" + marker), Since: "18"}},
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

// TestUnsealHidesContent checks that the decoder does not quote the content of
// an envelope that it cannot read.
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
