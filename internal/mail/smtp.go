package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/stoahq/stoa/internal/keyring"
)

// Error is a refusal of a mail server. It contains no text of the server or the
// message, which may contain personal data.
type Error struct {
	Code int // of SMTP; 0 for a failure of the connection
	// Final refusals (5xx) are permanent: the message would be refused again.
	Final bool
	Step  string // what was refused
}

func (e *Error) Error() string {
	if e.Code == 0 {
		return "the connection to the mail server broke: " + e.Step
	}
	return fmt.Sprintf("the mail server refused with %d: %s", e.Code, e.Step)
}

// IsFinal reports whether err is a permanent refusal.
func IsFinal(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Final
}

// converse has one conversation with the server, in which it takes msg or refuses it.
func (s *Sender) converse(ctx context.Context, msg *gomail.Msg) error {
	client, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // the result of Send decides
	err = client.Send(msg)
	if err == nil || msg.IsDelivered() {
		return nil
	}
	var refused *gomail.SendError
	if !errors.As(err, &refused) {
		return &Error{Step: "sending"}
	}
	code := refused.ErrorCode()
	return &Error{Code: code, Final: code >= 500, Step: refused.Reason.String()}
}

// dial connects, encrypts and signs in. Its errors are not about a message.
func (s *Sender) dial(ctx context.Context) (*gomail.Client, error) {
	client, err := gomail.NewClient(s.server.host, s.server.options(s.domain(), s.opts.Roots)...)
	if err != nil {
		return nil, err
	}
	if err := client.DialWithContext(ctx); err != nil {
		var said *textproto.Error
		if errors.As(err, &said) {
			return nil, &Error{Code: said.Code, Step: "greeting, encryption or sign-in"}
		}
		return nil, fmt.Errorf("the mail server at %s cannot be used: %w", s.server.address(), err)
	}
	return client, nil
}

// server is the address of an SMTP server.
type server struct {
	host     string
	port     int
	implicit bool // TLS from the first byte
	plain    bool // no TLS, to a loopback address
	user     string
	password keyring.Secret
}

// sendTimeout limits connecting to the server, and each exchange with it.
const sendTimeout = 20 * time.Second

// parseURL parses the URL of an SMTP server. Its errors contain no part of the URL.
func parseURL(secret keyring.Secret) (*server, error) {
	u, err := url.Parse(secret.Reveal())
	if err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "smtp" && u.Scheme != "smtps" {
		return nil, errors.New("must be smtp://… or smtps://…, such as smtps://user:password@smtp.example.com:465; special characters in the password are written as %XX")
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("has something after the host: there are no options")
	}
	s := &server{host: u.Hostname(), port: 587, implicit: u.Scheme == "smtps", user: u.User.Username()}
	if s.implicit {
		s.port = 465
	}
	if p := u.Port(); p != "" {
		if s.port, err = strconv.Atoi(p); err != nil || s.port < 1 || s.port > 65535 {
			return nil, errors.New("has a port that is none")
		}
	}
	password, given := u.User.Password()
	if (s.user != "") != given {
		return nil, errors.New("has a user without a password, or the other way round")
	}
	s.password, s.plain = keyring.NewSecret(password), !s.implicit && isLoopback(s.host)
	return s, nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

func (s *server) address() string { return net.JoinHostPort(s.host, strconv.Itoa(s.port)) }

func (s *server) options(hello string, roots *x509.CertPool) []gomail.Option {
	opts := []gomail.Option{
		gomail.WithPort(s.port), gomail.WithTimeout(sendTimeout), gomail.WithHELO(hello),
		gomail.WithTLSConfig(&tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.host, RootCAs: roots}),
	}
	auth := gomail.SMTPAuthAutoDiscover
	switch {
	case s.implicit:
		opts = append(opts, gomail.WithSSL())
	case s.plain:
		opts, auth = append(opts, gomail.WithTLSPolicy(gomail.NoTLS)), gomail.SMTPAuthPlainNoEnc
	default:
		opts = append(opts, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	if s.user != "" {
		opts = append(opts, gomail.WithSMTPAuth(auth), gomail.WithUsername(s.user), gomail.WithPassword(s.password.Reveal()))
	}
	return opts
}
