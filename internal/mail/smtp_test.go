package mail

import (
	"log/slog"
	"testing"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail/mailtest"
)

// TestStartTLS checks that mail to another machine is encrypted or not sent. The test's
// server is on this machine and is made to count as another one.
func TestStartTLS(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ offered, trusted, signed bool }{
		"encrypted": {true, true, true}, "not offered": {false, true, false}, "not offered to sign in": {false, true, true}, "unknown authority": {true, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			accepts, user := mailtest.Options{StartTLS: c.offered}, ""
			if c.signed {
				accepts.User, accepts.Password, user = "stoa", "right", "stoa:right@"
			}
			server := mailtest.Start(t, accepts)
			opts := Options{URL: keyring.NewSecret("smtp://" + user + server.Address()), From: "a@example.com", Log: slog.New(slog.DiscardHandler)}
			if c.trusted {
				opts.Roots = server.Roots
			}
			s, err := New(opts)
			if err != nil {
				t.Fatal(err)
			}
			s.server.plain = false
			err = s.Send(t.Context(), Message{ID: "m", To: Address{Email: "b@example.com"}})
			if want := c.offered && c.trusted; (err == nil) != want || len(server.Mails()) > 0 != want || server.SignedIn() != want {
				t.Errorf("%v, %d mails", err, len(server.Mails()))
			}
		})
	}
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.8.8.8": true, "::1": true, "localhost": true, "LocalHost": true,
		"10.0.0.1": false, "localhost.example.com": false, "0.0.0.0": false, "mail.example.com": false, "": false,
	} {
		if got := isLoopback(host); got != want {
			t.Errorf("isLoopback(%q) = %t", host, got)
		}
	}
}
