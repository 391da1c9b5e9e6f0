// Package mail sends e-mail: through the operator's SMTP server or, in
// development without one, into files. It knows no domain: what a message says,
// and to whom, is rendered by the domain at the time of sending.
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

	gomail "github.com/wneessen/go-mail"

	"github.com/stoahq/stoa/keyring"
)

// Message is one message to one person.
type Message struct {
	// ID is the message's own: 1 to 100 letters, digits and hyphens. Sent again
	// after a failure of which nobody knows what came of it, a message has the
	// same one, so that mail systems can tell.
	ID      string
	To      Address
	Subject string
	Text    string // plain, lines of any length
}

// Address is a person's mailbox. Name may be empty.
type Address struct {
	Name  string
	Email string
}

// Options say how messages leave.
type Options struct {
	// URL is smtps://user:password@host:465 (TLS from the first byte) or
	// smtp://user:password@host:587 (STARTTLS, which the server must offer).
	// The server's certificate is verified. Only to a loopback address does
	// smtp:// send without TLS. Zero: no server.
	URL   keyring.Secret
	From  string         // such as "Stoa <no-reply@example.com>"
	Dir   string         // where messages go, as .eml files, without a server; empty: nowhere
	Roots *x509.CertPool // who may sign the server's certificate; nil: whom the system trusts
	Log   *slog.Logger
}

// Sender sends messages. It is safe for concurrent use.
type Sender struct {
	opts   Options
	from   *netmail.Address
	server *server // nil without one
}

// ErrNoServer means that there is no way for messages to leave.
var ErrNoServer = errors.New("no mail can be sent: SMTP_URL is not set")

// New fails when an option cannot be used. It connects to nothing.
func New(opts Options) (*Sender, error) {
	from, err := netmail.ParseAddress(opts.From)
	if err != nil || !printable(from.Name) {
		return nil, fmt.Errorf("the sender %q is no address such as \"Stoa <no-reply@example.com>\"", opts.From)
	}
	s := &Sender{opts: opts, from: from}
	if !opts.URL.IsZero() {
		if s.server, err = parseURL(opts.URL); err != nil {
			return nil, fmt.Errorf("the mail server's URL %w", err)
		}
	}
	return s, nil
}

// Describe says where messages go, without a secret.
func (s *Sender) Describe() string {
	switch {
	case s.server != nil:
		return "mail leaves through " + s.server.address()
	case s.opts.Dir != "":
		return "mail is written to " + s.opts.Dir
	}
	return ErrNoServer.Error()
}

// Goes reports whether messages go anywhere.
func (s *Sender) Goes() bool { return s.server != nil || s.opts.Dir != "" }

// Send sends m. It fails with ErrNoServer, with an *Error, or with what kept it
// from reaching the server. A message that failed may have been taken all the
// same, when the connection broke at the last moment.
func (s *Sender) Send(ctx context.Context, m Message) error {
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

// Check connects to the server, as Send would, and sends nothing.
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

// compose writes the message. Whatever a text holds, it becomes no header.
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
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no holiday greeting comes back
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	return msg, nil
}

// badMailbox is SMTP's code for an address that is none (RFC 5321, 4.2.3).
const badMailbox = 553

func notInID(r rune) bool {
	return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}

// oneLine makes one line of a text, of at most 200 characters.
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

// write puts the message into a file of its own that nobody else can read.
func (s *Sender) write(ctx context.Context, id string, msg *gomail.Msg) error {
	if err := os.MkdirAll(s.opts.Dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(s.opts.Dir, id+".eml")
	file, err := os.CreateTemp(s.opts.Dir, "."+id+"-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) //nolint:errcheck // after the rename it is not there
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
