// Package mail sends e-mail, through the operator's SMTP server or, in development without
// one, into files. It is independent of the domains: a domain renders a message when it
// sends it.
package mail

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	gomail "github.com/wneessen/go-mail"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tracing"
)

// Message is a message to one person.
type Message struct {
	// ID is 1 to 100 letters, digits and hyphens. A message that is sent again after
	// a failure with an unknown result has the same ID, so that mail systems can
	// detect the duplicate.
	ID      string
	To      Address
	Subject string
	Text    string // plain text, lines of any length
}

// Address is a person's mailbox. Name may be empty.
type Address struct {
	Name  string
	Email string
}

// Options configure a Sender.
type Options struct {
	// URL is smtps://user:password@host:465 (TLS from the first byte) or
	// smtp://user:password@host:587 (STARTTLS, which the server must offer).
	// The server's certificate is verified. smtp:// sends without TLS to a loopback
	// address only. Zero: no server.
	URL   keyring.Secret
	From  string         // such as "Stoa <no-reply@example.com>"
	Dir   string         // the directory of .eml files, without a server; empty: none
	Roots *x509.CertPool // the roots of the server's certificate; nil: the system's
	Log   *slog.Logger
	// Tracer makes the spans of conversations with the server. Nil: they have none.
	Tracer *tracing.Tracer
}

// Sender sends messages. It is safe for concurrent use.
type Sender struct {
	opts   Options
	from   *netmail.Address
	server *server // nil without one
	sent   *prometheus.CounterVec
}

// ErrNoServer reports that neither a server nor a directory is configured.
var ErrNoServer = errors.New("no mail can be sent: SMTP_URL is not set")

// New returns a Sender. It fails when an option is invalid, and does not connect.
func New(opts Options) (*Sender, error) {
	from, err := netmail.ParseAddress(opts.From)
	if err != nil || !printable(from.Name) {
		return nil, fmt.Errorf("the sender %q is no address such as \"Stoa <no-reply@example.com>\"", opts.From)
	}
	s := &Sender{opts: opts, from: from, sent: newSent()}
	if !opts.URL.IsZero() {
		if s.server, err = parseURL(opts.URL); err != nil {
			return nil, fmt.Errorf("the mail server's URL %w", err)
		}
	}
	return s, nil
}

// Describe returns where messages go, without secrets.
func (s *Sender) Describe() string {
	switch {
	case s.server != nil:
		return "mail leaves through " + s.server.address()
	case s.opts.Dir != "":
		return "mail is written to " + s.opts.Dir
	}
	return ErrNoServer.Error()
}

// Enabled reports whether messages can be sent or written.
func (s *Sender) Enabled() bool { return s.server != nil || s.opts.Dir != "" }

// Send sends m. It fails with ErrNoServer, with an *Error of the server, or with
// the error of the connection. When the connection breaks at the end, the server
// may have accepted the message despite the error.
func (s *Sender) Send(ctx context.Context, m Message) error {
	err := s.send(ctx, m)
	s.sent.WithLabelValues(outcomeOf(err)).Inc()
	return err
}

func (s *Sender) send(ctx context.Context, m Message) error {
	msg, err := s.compose(m)
	if err != nil {
		return err
	}
	switch {
	case s.server != nil:
		return s.deliver(ctx, msg)
	case s.opts.Dir != "":
		return s.write(ctx, m.ID, msg)
	}
	return ErrNoServer
}

// Check connects to the server as Send does, and sends nothing.
func (s *Sender) Check(ctx context.Context) error {
	if s.server == nil {
		return ErrNoServer
	}
	client, err := s.dial(ctx)
	if err != nil {
		return err
	}
	return client.Close()
}

// compose builds the message. No text of m can add a header.
func (s *Sender) compose(m Message) (*gomail.Msg, error) {
	to, err := netmail.ParseAddress(m.To.Email)
	if err != nil || m.ID == "" || len(m.ID) > 100 || strings.ContainsFunc(m.ID, notInID) {
		return nil, &Error{Code: badMailbox, Final: true, Step: "the recipient's address or the message's id"}
	}
	to.Name = Plain(m.To.Name, MaxName)
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if err := errors.Join(msg.From(s.from.String()), msg.To(to.String())); err != nil {
		return nil, &Error{Code: badMailbox, Final: true, Step: "the recipient's address"}
	}
	msg.Subject(oneLine(m.Subject))
	msg.SetMessageIDWithValue(m.ID + "@" + s.domain())
	msg.SetDate()
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: prevents automatic replies
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	return msg, nil
}

// badMailbox is SMTP's code for an invalid address (RFC 5321, 4.2.3).
const badMailbox = 553

func notInID(r rune) bool {
	return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}

// oneLine returns a text as one line of at most 200 characters.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if runes := []rune(s); len(runes) > 200 {
		s = string(runes[:199]) + "…"
	}
	return s
}

func printable(s string) bool { return s == oneLine(s) }

func (s *Sender) domain() string { return s.from.Address[strings.LastIndex(s.from.Address, "@")+1:] }

// write writes the message to a new file that only this user can read.
func (s *Sender) write(ctx context.Context, id string, msg *gomail.Msg) error {
	if err := os.MkdirAll(s.opts.Dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(s.opts.Dir, id+".eml")
	file, err := os.CreateTemp(s.opts.Dir, "."+id+"-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) //nolint:errcheck // it does not exist after the rename
	_, err = msg.WriteTo(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	s.opts.Log.InfoContext(ctx, "mail written, since there is no mail server (SMTP_URL)", "path", path)
	return nil
}
