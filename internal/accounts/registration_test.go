package accounts

import (
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
)

func TestRegistrationFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Registration)
		field  string
	}{
		"good":                   {func(*Registration) {}, ""},
		"email":                  {func(r *Registration) { r.Email = "owner" }, "email"},
		"password too short":     {func(r *Registration) { r.Password = keyring.NewSecret("Abcdefg1!") }, "password"},
		"first name empty":       {func(r *Registration) { r.FirstName = "" }, "firstName"},
		"first name blank":       {func(r *Registration) { r.FirstName = " \t\u00a0" }, "firstName"},
		"first name long":        {func(r *Registration) { r.FirstName = strings.Repeat("é", 101) }, "firstName"},
		"first name longest":     {func(r *Registration) { r.FirstName = " " + strings.Repeat("é", 100) + " " }, ""},
		"first name control":     {func(r *Registration) { r.FirstName = "Oli\x00ve" }, "firstName"},
		"first name not UTF-8":   {func(r *Registration) { r.FirstName = "Oli\xffve" }, "firstName"},
		"last name empty":        {func(r *Registration) { r.LastName = "" }, "lastName"},
		"last name control":      {func(r *Registration) { r.LastName = "Ow\nner" }, "lastName"},
		"first name URL":         {func(r *Registration) { r.FirstName = "http://evil.test" }, "firstName"},
		"first name host":        {func(r *Registration) { r.FirstName = "Win at evil.com now" }, "firstName"},
		"first name address":     {func(r *Registration) { r.FirstName = "me@evil.test" }, "firstName"},
		"first name override":    {func(r *Registration) { r.FirstName = "Oli\u202eve" }, "firstName"},
		"last name zero width":   {func(r *Registration) { r.LastName = "Ow\u200bner" }, "lastName"},
		"last name www":          {func(r *Registration) { r.LastName = "www.evil" }, "lastName"},
		"store name host":        {func(r *Registration) { r.StoreName = new("evil.com") }, "storeName"},
		"first name with joiner": {func(r *Registration) { r.FirstName = "نرگس\u200cها" }, ""},
		"first name with dots":   {func(r *Registration) { r.FirstName = "J.R.R." }, ""},
		"last name with a space": {func(r *Registration) { r.LastName = "van der Berg" }, ""},
	} {
		r := registration()
		c.change(&r)
		_, err := r.validate()
		if got := strings.Join(faultyFields(err), " "); got != c.field {
			t.Errorf("%s: faults in %q, want %q", name, got, c.field)
		}
		if c.field != "" {
			wantCode(t, err, stoa.InvalidRequest)
		}
	}
}

func TestPasswordRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, password, email string
		ok                    bool
	}{
		{"contract's example", goodPassword, "owner@example.com", true},
		{"shortest", "k3v9x!m2qz", "owner@example.com", true},
		{"one short", "k3v9x!m2q", "owner@example.com", false},
		{"short in characters, not in bytes", "ééèèààôô€", "owner@example.com", false},
		{"longest", strings.Repeat("é", 252) + "abcd", "owner@example.com", true},
		{"one long", strings.Repeat("é", 253) + "abcd", "owner@example.com", false},
		{"a megabyte", strings.Repeat("abcde", 200_000), "owner@example.com", false},
		{"four different", "abcdabcdabcd", "owner@example.com", false},
		{"five different", "abcdeabcdabcd", "owner@example.com", true},
		{"well known", "Password123!", "owner@example.com", false},
		{"phrase with spaces", "correct horse battery", "owner@example.com", true},
		{"the name and a number", "Owner12345!", "owner@example.com", false},
		{"the name, decorated", "!!owner!!2024", "owner@example.com", false},
		{"the name twice", "ownerownerx1234", "owner@example.com", false},
		{"the name in something long", "the owner of many old books", "owner@example.com", true},
		{"a short name by chance", "bob-is-late", "bob@example.com", true},
		{"no address to compare", goodPassword, "", true},
	} {
		p := normalPassword(keyring.NewSecret(c.password))
		if fault := passwordFault(p, c.email); (fault == "") != c.ok {
			t.Errorf("%s: fault %q, want accepted: %v", c.name, fault, c.ok)
		}
	}
}

func TestCleaned(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"short", "Mozilla/5.0 (X11) é", "Mozilla/5.0 (X11) é"},
		{"exact", strings.Repeat("a", 256), strings.Repeat("a", 256)},
		{"cut", strings.Repeat("a", 300), strings.Repeat("a", 256)},
		{"cut inside a character", strings.Repeat("a", 255) + "é", strings.Repeat("a", 255)},
		{"cut inside a long character", strings.Repeat("a", 253) + "😀", strings.Repeat("a", 253)},
		{"controls and bad bytes", "a\x00b\nc\xff", "abc"},
	} {
		if got := sanitize(c.in, 256); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
