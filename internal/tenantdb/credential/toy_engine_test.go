package credential

import (
	"regexp"
	"slices"
	"testing"

	"github.com/stoahq/stoa/internal/keyring"
)

// toy is an engine of this package's tests, which nothing but its facts and the line below
// knows.
const toy EngineName = "toy"

func init() {
	engines = append(engines, &toyFacts)
	Engines, Servers = engineNames(), slices.DeleteFunc(engineNames(), EngineName.Embedded)
}

var toyFacts = engineFacts{
	name: toy, title: "Toy", products: "Toy or Plaything", port: 7777,
	schemes: []string{"toy", "plaything"}, prefixes: "toy:// or plaything://", admin: "box",
	tls:   map[TLSMode]string{TLSVerify: "sslmode=verify-full", TLSVerifyCA: "sslmode=verify-ca", TLSDisable: "sslmode=disable"},
	words: regexp.MustCompile(`\bTOYHOST\b`),
	command: commandFacts{
		programs: []string{"toysql"}, positional: []string{"dbname"}, short: map[byte]string{'h': "host"}, flags: "q", long: map[string]string{"box": "dbname"},
	},
	snippets: func(c Credentials, url string) []Snippet { return []Snippet{environment(url, c)} },
}

// TestToyEngine checks that the connection strings of an engine which only one line of engines
// knows are detected, read and written, and that it may be the operator's server.
func TestToyEngine(t *testing.T) {
	t.Parallel()
	const text = "plaything://anna:s3cr3t-Pa55@db.example.com/shop"
	raw := keyring.NewSecret(text)
	if engine := DetectEngine(raw, SupabaseRules{}); engine != toy {
		t.Fatalf("the engine of %s is %q", text, engine)
	}
	c, err := ParseConnectionString(toy, raw)
	if err != nil || c.Engine != toy || c.Port != 7777 || !slices.Contains(OwnKinds(), string(c.Kind)) {
		t.Fatalf("got %+v, %v", c, err)
	}
	const written = "toy://anna:s3cr3t-Pa55@db.example.com:7777/shop?sslmode=verify-full"
	if url := c.ConnectionString().Reveal(); url != written {
		t.Errorf("written as %s, want %s", url, written)
	}
	if again, err := ParseConnectionString(toy, keyring.NewSecret(written)); err != nil || again != c {
		t.Errorf("read again as %+v, %v", again, err)
	}
	if list := c.Snippets(); len(list) != 1 {
		t.Errorf("snippets: %v", list)
	}
	if _, err := ParseConnectionString(PostgreSQL, raw); err == nil {
		t.Error("it is read as one of PostgreSQL")
	}
	server, err := ParseServer(keyring.NewSecret("toy://root:s3cr3t-Pa55@db.example.com"), "")
	if err != nil || server.Admin.Engine != toy || server.Admin.Database != "box" {
		t.Errorf("the operator's server is %v, %v", server, err)
	}
	c.Adopt = true
	if err := c.Validate(); err != nil {
		t.Errorf("its tables cannot be adopted: %v", err)
	}
}
