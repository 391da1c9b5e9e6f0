package credential

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
)

// Server is the operator's PostgreSQL or MySQL/MariaDB server, on which Stoa
// creates managed databases. Each store gets a database and a role of the same
// name, which has all rights there and none elsewhere. Unlike a merchant's
// server, it is trusted: the dialer may reach it at any address.
type Server struct {
	// Admin are the credentials of a user who may create databases and roles.
	Admin Credentials
}

// ParseServer parses "postgres://user:password@host:port/" or "mysql://…", with
// sslmode as in a merchant's connection string; ca is PEM or empty. Its error
// never contains the URL.
func ParseServer(raw keyring.Secret, ca string) (*Server, error) {
	engine := PostgreSQL
	u, err := url.Parse(strings.TrimSpace(raw.Reveal()))
	if err == nil && EngineOfScheme(u.Scheme) != "" {
		engine = EngineOfScheme(u.Scheme)
	}
	if err == nil && strings.Trim(u.Path, "/") == "" {
		u.Path = "/" + engine.facts().admin
		raw = keyring.NewSecret(u.String())
	}
	pasted, err := ParsePasted(engine, raw, ca, SupabaseRules{})
	c := pasted.Credentials
	var faulty *stoa.Error
	if errors.As(err, &faulty) {
		var words []string
		for _, f := range faulty.Fields {
			words = append(words, f.Message)
		}
		return nil, errors.New(strings.Join(words, "; "))
	}
	if err != nil {
		return nil, err
	}
	c.Kind = Managed
	return &Server{Admin: c}, nil
}

// String returns the server's address without its credentials.
func (s *Server) String() string {
	return fmt.Sprintf("%s at %s", s.Admin.Engine, net.JoinHostPort(s.Admin.Host, strconv.Itoa(s.Admin.Port)))
}
