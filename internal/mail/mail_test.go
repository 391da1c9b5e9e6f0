package mail_test

import (
	"bytes"
	"io"
	"log/slog"
	"mime"
	"mime/quotedprintable"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/mail/mailtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func sender(t *testing.T, opts mail.Options) *mail.Sender {
	t.Helper()
	if opts.From == "" {
		opts.From = "Stoa <no-reply@shops.test>"
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s, err := mail.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func secret(s string) keyring.Secret { return keyring.NewSecret(s) }

var hello = mail.Message{ID: "m-1", To: mail.Address{Name: "Zoë Müller", Email: "zoe@example.com"}, Subject: "Grüße aus Köln", Text: "Guten Tag ☕\n\nEine lange Zeile: " + strings.Repeat("wörtlich ", 50)}

// TestSend checks sending with encryption and sign-in, and to this machine without either.
func TestSend(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		scheme           string
		implicit, signed bool
	}{
		"smtps":              {"smtps", true, true},
		"loopback":           {"smtp", false, false},
		"loopback signed in": {"smtp", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts, user := mailtest.Options{Implicit: c.implicit}, ""
			if c.signed {
				opts.User, opts.Password = "stoa", "p@ss:w/rd%"
				user = "stoa:p%40ss%3Aw%2Frd%25@"
			}
			server := mailtest.Start(t, opts)
			s := sender(t, mail.Options{URL: secret(c.scheme + "://" + user + server.Address()), Roots: server.Roots})
			testkit.Must(t, s.Check(t.Context()))
			testkit.Must(t, s.Send(t.Context(), hello))
			got := server.Mails()
			if len(got) != 1 || !strings.HasPrefix(got[0].From, "FROM:<no-reply@shops.test>") || len(got[0].To) != 1 || !strings.HasPrefix(got[0].To[0], "TO:<zoe@example.com>") {
				t.Fatalf("%+v", got)
			}
			check(t, got[0].Message(t), hello)
		})
	}
}

// check compares a message with the received one.
func check(t *testing.T, got *netmail.Message, want mail.Message) {
	t.Helper()
	var decoder mime.WordDecoder
	subject, err := decoder.DecodeHeader(got.Header.Get("Subject"))
	if err != nil || subject != want.Subject {
		t.Errorf("subject %q, %v", subject, err)
	}
	to, err := got.Header.AddressList("To")
	if err != nil || len(to) != 1 || to[0].Name != want.To.Name || to[0].Address != want.To.Email {
		t.Errorf("to %v, %v", to, err)
	}
	if got := got.Header.Get("Message-ID"); got != "<"+want.ID+"@shops.test>" {
		t.Errorf("message id %q", got)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(got.Body))
	if text := strings.TrimRight(strings.ReplaceAll(string(body), "\r\n", "\n"), "\n"); err != nil || text != strings.TrimRight(want.Text, "\n") {
		t.Errorf("text %q, %v", text, err)
	}
}

// TestHostileTexts checks that no text of a message can add a header or a recipient.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t, mailtest.Options{})
	s := sender(t, mail.Options{URL: secret("smtp://" + server.Address())})
	for i, text := range []string{
		"x\r\nBcc: victim@example.com", "x\nBcc: victim@example.com\n\nbody", "x\rBcc: victim@example.com", "x\u2028Bcc: a", "x\x00y\x1b[31m",
		`"><victim@example.com>, "`, "a\", <victim@example.com>", "=?utf-8?q?x?=\r\n Bcc: y", "\xff\xfe", strings.Repeat("ü", 5000), "", "  \t ", "(comment) <x>",
	} {
		testkit.Must(t, s.Send(t.Context(), mail.Message{
			ID: "m", To: mail.Address{Name: text, Email: "owner@example.com"}, Subject: text, Text: text + "\r\n.\r\nQUIT\r\n",
		}))
		got := server.Mails()
		if len(got) != i+1 {
			t.Fatalf("%q: %d mails", text, len(got))
		}
		msg := got[i].Message(t)
		to, err := msg.Header.AddressList("To")
		if err != nil || len(to) != 1 || to[0].Address != "owner@example.com" || len(got[i].To) != 1 {
			t.Errorf("%q: to %v, %v", text, to, err)
		}
		for name := range msg.Header {
			if !strings.Contains("Date Mime-Version Message-Id Auto-Submitted Content-Type Content-Transfer-Encoding From To Subject", name) {
				t.Errorf("%q: header %s", text, name)
			}
		}
		for line := range bytes.Lines(got[i].Data) {
			if len(line) > 1000 {
				t.Errorf("%q: a line of %d bytes", text[:10], len(line))
			}
		}
	}
}

// TestRefusals checks that a 5xx about a message is final, that every other failure is not,
// and that no error contains an address or a password.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		refuse       func(command, argument string) int
		user         string
		final, taken bool
	}{
		"no such mailbox":        {refuse: code("RCPT", 550), final: true},
		"mailbox busy":           {refuse: code("RCPT", 450)},
		"sender refused":         {refuse: code("MAIL", 553), final: true},
		"data refused":           {refuse: code("DATA", 451)},
		"text refused":           {refuse: code(".", 554), final: true},
		"greylisted":             {refuse: code(".", 451)},
		"cut at data":            {refuse: code("DATA", 1)},
		"cut at the end":         {refuse: code(".", 1)},
		"wrong password":         {user: "stoa"}, // not a refusal of the message
		"taken, then RSET fails": {refuse: code("RSET", 421), taken: true},
		"taken, then cut":        {refuse: code("RSET", 1), taken: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := mailtest.Start(t, mailtest.Options{Refuse: c.refuse, User: c.user, Password: "right"})
			user := ""
			if c.user != "" {
				user = c.user + ":hunter2@"
			}
			err := sender(t, mail.Options{URL: secret("smtp://" + user + server.Address())}).Send(t.Context(), hello)
			if c.taken != (err == nil) || mail.IsFinal(err) != c.final {
				t.Fatalf("%v, final %t", err, mail.IsFinal(err))
			}
			for _, leak := range []string{"zoe@", "hunter2", "Grüße", "who is that"} {
				if err != nil && strings.Contains(err.Error(), leak) {
					t.Errorf("%q in %v", leak, err)
				}
			}
		})
	}
}

func code(command string, code int) func(string, string) int {
	return func(c, _ string) int {
		if c == command {
			return code
		}
		return 0
	}
}

// TestOnlyVerifiedTLS checks that nothing is sent to another machine in plain text, or to a
// server whose certificate does not verify.
func TestOnlyVerifiedTLS(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		implicit, roots, mail bool
	}{
		"unknown authority": {implicit: true},
		"known authority":   {implicit: true, roots: true, mail: true},
		"no TLS at all":     {roots: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := mailtest.Start(t, mailtest.Options{Implicit: c.implicit})
			opts := mail.Options{URL: secret("smtps://" + server.Address())}
			if c.roots {
				opts.Roots = server.Roots
			}
			err := sender(t, opts).Send(t.Context(), hello)
			if (err == nil) != c.mail || mail.IsFinal(err) || len(server.Mails()) > 0 != c.mail {
				t.Errorf("%v, %d mails", err, len(server.Mails()))
			}
		})
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mail")
	var log bytes.Buffer
	s := sender(t, mail.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	testkit.Must(t, s.Send(t.Context(), hello))
	testkit.Must(t, s.Send(t.Context(), hello)) // a repetition after a crash has the same message ID
	entries, err := os.ReadDir(dir)
	testkit.Must(t, err)
	if len(entries) != 1 {
		t.Fatalf("%v", entries)
	}
	path := filepath.Join(dir, "m-1.eml")
	info, err := os.Stat(path)
	testkit.Must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o", info.Mode().Perm())
	}
	if !strings.Contains(log.String(), path) || strings.Contains(log.String(), "zoe") {
		t.Errorf("log: %s", log.String())
	}
	data, err := os.ReadFile(path)
	testkit.Must(t, err)
	msg, err := netmail.ReadMessage(bytes.NewReader(data))
	testkit.Must(t, err)
	check(t, msg, hello)
	if err := sender(t, mail.Options{}).Send(t.Context(), hello); err != mail.ErrNoServer { //nolint:errorlint // the error itself, unwrapped
		t.Errorf("without server and folder: %v", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for url, good := range map[string]bool{
		"smtp://mail.example.com": true, "smtps://u:p@mail.example.com:465/": true, "smtp://u:p@[::1]:2525": true, "smtp://localhost": true,
		"mail.example.com": false, "http://mail.example.com": false, "smtp://": false, "smtp://:25": false, "smtp://u@h": false, "smtp://:hunter2@h": false,
		"smtp://u:hunter2@h:0": false, "smtp://u:hunter2@h:99999": false, "smtp://u:hunter2@h?tls=no": false, "smtp://u:hunter2@h/x": false, "smtp://u:hunter2%zz@h": false,
	} {
		_, err := mail.New(mail.Options{URL: secret(url), From: "a@example.com"})
		if (err == nil) != good || err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", url, err)
		}
	}
	for from, good := range map[string]bool{
		"a@example.com": true, "Zoë <a@example.com>": true, "": false, "nobody": false, "a@example.com, b@example.com": false, "a@example.com\r\nBcc: b@example.com": false,
	} {
		if _, err := mail.New(mail.Options{From: from}); (err == nil) != good {
			t.Errorf("%q: %v", from, err)
		}
	}
	s := sender(t, mail.Options{Dir: t.TempDir()})
	for name, m := range map[string]mail.Message{
		"no id": {To: hello.To}, "id that is a path": {ID: "../x", To: hello.To}, "no recipient": {ID: "m"},
		"two recipients": {ID: "m", To: mail.Address{Email: "a@example.com, b@example.com"}}, "hostile": {ID: "m", To: mail.Address{Email: "a@example.com\r\nBcc: b@example.com"}},
	} {
		if err := s.Send(t.Context(), m); !mail.IsFinal(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
