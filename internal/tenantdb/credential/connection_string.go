package credential

import (
	"net"
	"net/url"
	"strconv"

	"github.com/stoahq/stoa/internal/keyring"
)

// urlSettings are the names of the TLS modes in a URL, as each server's own clients read
// them.
var urlSettings = map[EngineName]map[TLSMode]string{
	PostgreSQL: {TLSVerify: "sslmode=verify-full", TLSVerifyCA: "sslmode=verify-ca", TLSDisable: "sslmode=disable"},
	MySQL:      {TLSVerify: "ssl-mode=VERIFY_IDENTITY", TLSVerifyCA: "ssl-mode=VERIFY_CA", TLSDisable: "ssl-mode=DISABLED"},
}

// ConnectionString returns the URL of a database on a server, as clients and ParsePasted
// read it. It does not contain the certificate authority.
func (c Credentials) ConnectionString() keyring.Secret {
	scheme := "postgresql"
	if c.Engine == MySQL {
		scheme = "mysql"
	}
	u := url.URL{
		Scheme: scheme, User: url.UserPassword(c.User, c.Password.Reveal()),
		Host: net.JoinHostPort(c.Host, strconv.Itoa(c.Port)), Path: "/" + c.Database, RawQuery: urlSettings[c.Engine][c.TLS],
	}
	return keyring.NewSecret(u.String())
}
