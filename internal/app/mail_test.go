package app_test

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/doctor"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail/mailtest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestLowBalanceMail checks the path from the setting through a spend to the owner's
// mailbox.
func TestLowBalanceMail(t *testing.T) {
	t.Parallel()
	smtp := mailtest.Start(t, mailtest.Options{User: "stoa", Password: "secret"})
	cfg := testConfig(t, masterdb.SQLite)
	cfg.SMTPURL, cfg.MailFrom = keyring.NewSecret("smtp://stoa:secret@"+smtp.Address()), "Läden <no-reply@example.com>"
	s := startServer(t, cfg)
	c, id := register(t, s, "owner@example.com")
	c.proven().buy(id, 10)
	const settings = "/api/credits/settings"
	c.call("GET", settings, nil).want(http.StatusOK).is(nil, "lowBalanceThreshold")
	c.call("PUT", settings, object{"lowBalanceThreshold": "2.5"}).want(http.StatusOK).is("2.5", "lowBalanceThreshold")
	c.call("POST", "/api/credits/spend", object{"amount": 8}).want(http.StatusOK)
	low := func() (out []mailtest.Mail) {
		for _, m := range smtp.Mails() {
			if strings.HasPrefix(m.Message(t).Header.Get("Subject"), "Credits run low") {
				out = append(out, m)
			}
		}
		return out
	}
	testkit.Eventually(t, testkit.Timeout, "the owner has mail", func() bool { return len(low()) == 1 })
	got := low()[0]
	if !strings.HasPrefix(got.To[0], "TO:<owner@example.com>") || !strings.Contains(string(got.Data), s.URL) {
		t.Errorf("%s: %s", got.To, got.Data)
	}

	for _, wrong := range []any{object{}, object{"lowBalanceThreshold": "0"}, object{"lowBalanceThreshold": -1}, object{"lowBalanceThreshold": "much"}, object{"lowBalanceThreshold": true},
		object{"lowBalanceThreshold": "1.00001"}, object{"lowBalanceThreshold": "9999999999999999999"}, object{"lowBalanceThreshold": 1, "more": 1}} {
		c.call("PUT", settings, wrong).problem(http.StatusUnprocessableEntity, "invalid_request")
	}
	viewer, _ := register(t, s, "viewer@example.com")
	s.join(t, viewer, id, authz.Viewer)
	viewer.call("PUT", settings, object{"lowBalanceThreshold": nil}, "X-Store-Id", id).problem(http.StatusForbidden, "forbidden")
	viewer.call("GET", settings, nil, "X-Store-Id", id).want(http.StatusOK).is("2.5", "lowBalanceThreshold")
	c.call("PUT", settings, object{"lowBalanceThreshold": nil}).want(http.StatusOK).is(nil, "lowBalanceThreshold")
}

// TestMailWithoutServer checks that in development mails are written to a file, and
// that in production the missing mail server is reported at the start.
func TestMailWithoutServer(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	s := startServer(t, cfg)
	c, id := register(t, s, "owner@example.com")
	c.proven().buy(id, 10)
	c.call("PUT", "/api/credits/settings", object{"lowBalanceThreshold": 5}).want(http.StatusOK)
	c.call("POST", "/api/credits/spend", object{"amount": 8}).want(http.StatusOK)
	testkit.Eventually(t, testkit.Timeout, "a file", func() bool {
		files, err := filepath.Glob(filepath.Join(cfg.DataDir, "mail", "low-*.eml"))
		if err != nil || len(files) == 0 {
			return false
		}
		info, err := os.Stat(files[0])
		return err == nil && info.Mode().Perm() == 0o600
	})

	prod := productionConfig(t)
	var log syncBuffer
	p, err := launch(t.Context(), prod, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "mail waits until SMTP_URL is set") {
		t.Errorf("log: %s", log.String())
	}
}

// TestDoctorLooksAtMail checks that doctor signs in to the mail server, sends no mail, and
// warns when mail cannot be sent, because everything else works.
func TestDoctorLooksAtMail(t *testing.T) {
	t.Parallel()
	smtp := mailtest.Start(t, mailtest.Options{User: "stoa", Password: "secret"})
	for url, want := range map[string]bool{
		"smtp://stoa:secret@" + smtp.Address(): true, "smtp://stoa:hunter2@" + smtp.Address(): false, "smtp://" + closedPort(t): false, "nonsense:hunter2": false,
	} {
		cfg := testConfig(t, masterdb.SQLite)
		cfg.SMTPURL = keyring.NewSecret(url)
		findings, _ := doctor.Examine(context.WithoutCancel(t.Context()), cfg, nil)
		found := false
		for _, f := range findings {
			found = found || f.Check == "mail"
			if f.Check == "mail" && (!f.OK || f.Warning == want || f.Warning && f.Remedy == "") || strings.Contains(f.Detail, "hunter2") {
				t.Errorf("%s: %+v", url, f)
			}
		}
		if !found {
			t.Errorf("%s: %+v", url, findings)
		}
	}
	if n := len(smtp.Mails()); n > 0 {
		t.Errorf("%d mails", n)
	}

	cfg := productionConfig(t)
	args := []string{"doctor", "--env=production", "--data-dir=" + cfg.DataDir, "--master-db-url=" + cfg.MasterDBURL.Reveal(), "--encryption-key=" + cfg.EncryptionKey.Reveal(),
		"--jwt-secret=" + cfg.JWTSecret.Reveal(), "--base-domain=shops.example", "--base-url=http://shops.example"}
	startServer(t, cfg)
	status, out, _ := command(t, args...)
	for _, check := range []string{"mail", "public address", "archives"} {
		if !regexp.MustCompile(`(?m)^warn +` + check).MatchString(out) {
			t.Errorf("doctor in production does not warn of %s: status %d\n%s", check, status, out)
		}
	}
	if status != 0 {
		t.Errorf("status %d of warnings only:\n%s", status, out)
	}
}
