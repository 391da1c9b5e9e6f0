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
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/tenantdb"
)

// schemes of every kind that takes a connection string.
var schemes = map[tenantdb.EngineName]string{tenantdb.PostgreSQL: "postgres", tenantdb.MySQL: "mysql", tenantdb.Supabase: "postgresql"}

// Whatever a person pastes around a password, the answer does not repeat it,
// and what is accepted names one host.
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
			c, err := tenantdb.ParseConnectionString(engine, keyring.NewSecret(raw))
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

// Whatever a person pastes, be it no connection string at all, is accepted
// whole or refused in our words.
func FuzzConnectionString(f *testing.F) {
	for _, raw := range []string{
		"", "postgres://", "host=db.example.com user=anna password=x dbname=shop", "anna:x@tcp(db.example.com)/shop", "jdbc:mysql://h/d?user=u&password=p",
		"postgres://anna:x@db.example.com:5432/shop?sslmode=verify-full", "mysql://anna:x@[2001:db8::1]:3306/shop?tls=true",
		"mariadb://a%20b:%40@db.example.com/sh%40op?ssl-mode=DISABLED", "postgresql://postgres." + ref + ":x@a.pooler.supabase.com:6543/postgres",
		"postgres://u:p@%2Fvar%2Frun/d", "postgres://u:p@a,b/d", "postgres://u:p@h/d?options=-c%20x", "postgres://u:p@h:0/d", "postgres://u:p@h%00/d", "postgres://[::1%25eth0]/",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		for engine := range schemes {
			c, err := tenantdb.ParseConnectionString(engine, keyring.NewSecret(raw))
			if err == nil {
				acceptable(t, engine, c)
			} else if trimmed := strings.TrimSpace(raw); len(trimmed) > 60 { // our words hold an example, and may hold a parameter's name
				refusedFor(t, err, trimmed)
			}
		}
	})
}

// refusedFor fails unless err is a fault of the input that does not repeat it.
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

// acceptable fails unless c can be used as it is: valid, with one host, and
// the same again when written out and read.
func acceptable(t *testing.T, engine tenantdb.EngineName, c tenantdb.Credentials) {
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
	pasted := engine == tenantdb.PostgreSQL && c.Kind == tenantdb.KindSupabase // a project's string is one, whatever it is pasted as
	if c.Kind != tenantdb.Kind(engine) && !pasted || c.Port < 1 || c.Port > 65535 || c.User == "" || c.Database == "" || c.Password.IsZero() || c.TLS == "" || c.CACertificate != "" {
		t.Fatalf("not whole: %+v", c)
	}
	again, err := tenantdb.ParseConnectionString(engine, keyring.NewSecret(encode(schemes[engine], c)))
	if err != nil {
		t.Fatalf("%+v does not survive: %v", c, err)
	}
	if diff := cmp.Diff(c, again, sameSecret); diff != "" {
		t.Fatal(diff)
	}
}

// encode writes c out in the canonical form.
func encode(scheme string, c tenantdb.Credentials) string {
	return scheme + "://" + url.UserPassword(c.User, c.Password.Reveal()).String() + "@" + net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) +
		"/" + strings.ReplaceAll(url.PathEscape(c.Database), "@", "%40") + "?sslmode=" + string(c.TLS)
}
