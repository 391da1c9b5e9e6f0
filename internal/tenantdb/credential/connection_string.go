package credential

import (
	"net"
	"net/url"
	"strconv"

	"github.com/stoahq/stoa/internal/keyring"
)

// ConnectionString returns the URL of a database on a server, as clients and ParsePasted
// read it. It does not contain the certificate authority.
func (c Credentials) ConnectionString() keyring.Secret {
	f := c.Engine.facts()
	u := url.URL{
		Scheme: f.scheme(), User: url.UserPassword(c.User, c.Password.Reveal()),
		Host: net.JoinHostPort(c.Host, strconv.Itoa(c.Port)), Path: "/" + c.Database, RawQuery: f.tls[c.TLS],
	}
	return keyring.NewSecret(u.String())
}
