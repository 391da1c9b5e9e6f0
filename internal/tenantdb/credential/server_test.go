package credential_test

import (
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

func TestParseServer(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"postgres://admin:s3cret@db.internal":             "postgresql at db.internal:5432",
		"postgresql://admin:s3cret@db.internal:6000/x":    "postgresql at db.internal:6000",
		"mysql://admin:s3cret@db.internal/":               "mysql at db.internal:3306",
		"":                                                "",
		"sqlite:stoa.db":                                  "",
		"postgres://db.internal/x":                        "",
		"postgres://admin@db.internal":                    "",
		"postgres://admin:s3cret@db.internal/x?host=/tmp": "",
		"postgres://admin:s3cret@/x":                      "",
		"mysql://admin:s3cret@[::1:x/":                    "",
	} {
		server, err := credential.ParseServer(keyring.NewSecret(raw), "")
		if (err == nil) != (want != "") || err == nil && server.String() != want {
			t.Errorf("%q: %v, %v", raw, server, err)
		}
		if err != nil && (strings.Contains(err.Error(), "s3cret") || err.Error() == "") {
			t.Errorf("%q: the error is %q", raw, err)
		}
	}
	if _, err := credential.ParseServer(keyring.NewSecret("postgres://a:b@c/d"), "no PEM"); err == nil {
		t.Error("a CA certificate that is none is taken")
	}
}
