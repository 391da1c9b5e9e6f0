package app_test

import (
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
)

// TestPastedConnectionStrings checks that the connection strings that owners paste
// connect to real servers, and that each answer lists the ignored parameters.
func TestPastedConnectionStrings(t *testing.T) {
	t.Parallel()
	forms := map[credential.EngineName]map[string]func(u *url.URL) string{
		credential.PostgreSQL: {
			"a variable": func(u *url.URL) string { return `export DATABASE_URL="` + u.String() + `&connection_limit=5";` },
			"psql":       func(u *url.URL) string { return "psql '" + u.String() + "&connection_limit=5'" },
			"schema":     func(u *url.URL) string { return u.String() + "&schema=shop&connection_limit=5" },
			"an endpoint": func(u *url.URL) string {
				return u.String() + "&options=endpoint%3Dep-cool-name-123456&connection_limit=5"
			},
			"a driver": func(u *url.URL) string {
				return "postgresql+asyncpg" + u.String()[len(u.Scheme):] + "&connection_limit=5"
			},
			"keywords": func(u *url.URL) string {
				return "host=" + u.Hostname() + " port=" + u.Port() + " user=" + u.User.Username() + " password=" + passwordOf(u) + " dbname=" + u.Path[1:] + " sslmode=disable connection_limit=5"
			},
		},
		credential.MySQL: {
			"JDBC": func(u *url.URL) string {
				return "jdbc:mysql://" + u.Host + u.Path + "?user=" + u.User.Username() + "&password=" + passwordOf(u) + "&useSSL=false&connection_limit=5"
			},
			"mysql": func(u *url.URL) string {
				return "mysql -h " + u.Hostname() + " -P " + u.Port() + " -u " + u.User.Username() + " -p" + passwordOf(u) + " --ssl-mode=DISABLED --connection-limit=5 " + u.Path[1:]
			},
		},
	}
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c, _ := register(t, s, "owner@example.com")
	for engine, list := range forms {
		for name, form := range list {
			u, err := url.Parse(tenantdbtest.ConnectionString(t, engine))
			if err != nil {
				t.Fatal(err)
			}
			id := c.call("POST", "/api/stores", object{"name": name}).want(http.StatusCreated).text("id")
			body := object{"type": string(engine), "connectionString": form(u)}
			path := "/api/stores/" + id
			for _, call := range []string{"/database/test", "/connect-database", "/database/rotate-credentials"} {
				a := c.call("POST", path+call, body).want(http.StatusOK)
				if ignored, _ := a.at("ignoredSettings").([]any); len(ignored) != 1 || !strings.HasPrefix(strings.ReplaceAll(ignored[0].(string), "-", "_"), "connection_limit") {
					t.Errorf("%s %s: ignored %v in %s", name, call, ignored, a.raw)
				}
				if strings.Contains(a.raw, passwordOf(u)) {
					t.Errorf("%s %s: password in %s", name, call, a.raw)
				}
			}
			// The schema of the tables need not be given again.
			c.call("POST", path+"/database/rotate-credentials", object{"type": string(engine), "connectionString": u.String()}).want(http.StatusOK)
			c.call("GET", path, nil).want(http.StatusOK).is("active", "status")
		}
	}
}

func passwordOf(u *url.URL) string {
	password, _ := u.User.Password()
	return password
}

// TestLargestBundle checks that certificates of up to 1 MiB pass every limit, that
// larger ones are refused by name, and that the answer does not repeat a private key.
func TestLargestBundle(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c, id := register(t, s, "owner@example.com")
	raw := tenantdbtest.ConnectionString(t, credential.PostgreSQL)
	body := func(ca string) object {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		u.RawQuery = "sslmode=verify-ca"
		return object{"type": "postgresql", "connectionString": u.String(), "tls": object{"caCertificate": ca}}
	}
	own := readFile(t, tenantdbtest.CAEnv)
	bundle := "\ufeff" + own + strings.Repeat("# a comment\r\n", (1<<20-len(own)-3)/13)
	test := "/api/stores/" + id + "/database/test"
	c.call("POST", test, body(bundle)).want(http.StatusOK).is(true, "ok")
	c.call("POST", test, body(own+strings.Repeat("# a comment\r\n", 1<<20/13))).problem(http.StatusUnprocessableEntity, "invalid_request")
	key := c.call("POST", test, body(own+"-----BEGIN PRIVATE KEY-----\nc2VjcmV0Zm9yYWxs\n-----END PRIVATE KEY-----\n")).problem(http.StatusUnprocessableEntity, "invalid_request")
	if !strings.Contains(key.raw, "private key") || strings.Contains(key.raw, "c2VjcmV0Zm9yYWxs") {
		t.Errorf("got %s", key.raw)
	}
	c.call("POST", "/api/stores/"+id+"/connect-database", body(bundle)).want(http.StatusOK).is("active", "status")
}

// readFile reads the file that an environment variable names.
func readFile(t *testing.T, variable string) string {
	t.Helper()
	name := os.Getenv(variable)
	if name == "" {
		t.Skip("needs servers with TLS")
	}
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
