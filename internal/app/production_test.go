package app_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/keyring"
)

// TestProductionRefuses checks that each harmful setting is named, in the error of
// serve and, with a remedy, in the report of doctor.
func TestProductionRefuses(t *testing.T) {
	t.Parallel()
	same := keyring.Generate("same")
	key := func(b []byte) keyring.Secret {
		return keyring.NewSecret("k:" + base64.StdEncoding.EncodeToString(b))
	}
	stripe := func(c *config.Config, secretKey, webhook string) {
		c.StripeSecretKey, c.StripeWebhookSecret = secretOf(secretKey), secretOf(webhook)
	}
	const live, webhook = "sk_live_51Hx", "whsec_9f8Zk2LmQ7xR4tYv"
	for name, c := range map[string]struct {
		change func(*config.Config)
		want   string // "" for a valid setting
	}{
		"as it should be":   {func(*config.Config) {}, ""},
		"no master":         {func(c *config.Config) { c.MasterDBURL = keyring.Secret{} }, "MASTER_DB_URL is required in production"},
		"no domain":         {func(c *config.Config) { c.BaseDomain = "localhost" }, "STOA_BASE_DOMAIN is required in production"},
		"no address":        {func(c *config.Config) { c.BaseURL = "" }, "STOA_BASE_URL is required in production"},
		"no encryption key": {func(c *config.Config) { c.EncryptionKey = keyring.Secret{} }, "ENCRYPTION_KEY is required in production"},
		"no signing key":    {func(c *config.Config) { c.JWTSecret = keyring.Secret{} }, "JWT_SECRET is required in production"},
		"zeros":             {func(c *config.Config) { c.EncryptionKey = key(make([]byte, 32)) }, "ENCRYPTION_KEY can be guessed"},
		"one byte":          {func(c *config.Config) { c.JWTSecret = key(bytes.Repeat([]byte{0xab}, 32)) }, "JWT_SECRET can be guessed"},
		"few bytes":         {func(c *config.Config) { c.JWTSecret = key(bytes.Repeat([]byte{1, 2, 3, 200}, 8)) }, "JWT_SECRET can be guessed"},
		"a phrase":          {func(c *config.Config) { c.JWTSecret = key([]byte("change-me-change-me-change-me-32")) }, "JWT_SECRET can be guessed"},
		"a weak one behind": {func(c *config.Config) {
			c.JWTSecret = keyring.NewSecret(keyring.Generate("new").Reveal() + "," + key(make([]byte, 32)).Reveal())
		}, "JWT_SECRET can be guessed"},
		"one key for both":           {func(c *config.Config) { c.EncryptionKey, c.JWTSecret = same, same }, "JWT_SECRET is the ENCRYPTION_KEY"},
		"live payments":              {func(c *config.Config) { stripe(c, live, webhook) }, ""},
		"sandbox payments":           {func(c *config.Config) { stripe(c, "sk_test_51Hx", webhook) }, "STRIPE_SECRET_KEY is of Stripe's sandbox"},
		"restricted, of the sandbox": {func(c *config.Config) { stripe(c, "rk_test_51Hx", webhook) }, "STRIPE_SECRET_KEY is of Stripe's sandbox"},
		"a made-up webhook secret":   {func(c *config.Config) { stripe(c, live, "whsec_test") }, "STRIPE_WEBHOOK_SECRET can be guessed"},
		"the documented one":         {func(c *config.Config) { stripe(c, live, "whsec_…") }, "STRIPE_WEBHOOK_SECRET can be guessed"},
		"plaintext over the world": {func(c *config.Config) {
			c.MasterDBURL = secretOf("postgres://u:hunter2@198.41.0.4/stoa?sslmode=disable")
		}, "MASTER_DB_URL lets passwords and data travel in plaintext to 198.41.0.4"},
		"plaintext by default": {func(c *config.Config) { c.MasterDBURL = secretOf("postgres://u:hunter2@198.41.0.4/stoa") }, "MASTER_DB_URL lets"},
		"plaintext to one of two": {func(c *config.Config) {
			c.MasterDBURL = secretOf("postgres://u:hunter2@10.0.0.1,198.41.0.4/stoa?sslmode=prefer")
		}, "MASTER_DB_URL lets"},
		"TLS over the world": {func(c *config.Config) {
			c.MasterDBURL = secretOf("postgres://u:hunter2@198.41.0.4/stoa?sslmode=require")
		}, ""},
		"plaintext at home": {func(c *config.Config) { c.MasterDBURL = secretOf("postgres://u:hunter2@10.0.0.1/stoa?sslmode=disable") }, ""},
		"plaintext on this machine": {func(c *config.Config) {
			c.MasterDBURL = secretOf("postgres://u:hunter2@localhost/stoa?sslmode=disable")
		}, ""},
		"plaintext of sessions": {func(c *config.Config) {
			c.MasterDBURL, c.MasterDBSessionURL = secretOf("postgres://u@10.0.0.1:6432/stoa"), secretOf("postgres://u:hunter2@198.41.0.4/stoa")
		}, "MASTER_DB_SESSION_URL lets"},
		"an open data folder": {func(c *config.Config) { c.DataDir = openFolder(t) }, "STOA_DATA_DIR"},
	} {
		cfg := productionConfig(t)
		c.change(cfg)
		err := cfg.Check()
		switch {
		case c.want == "" && err == nil:
			continue
		case c.want == "" || err == nil || !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), "\n") > 0:
			t.Errorf("%s: %v, want %q and no more", name, err, c.want)
			continue
		case strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "change-me"):
			t.Errorf("%s: the error repeats a secret: %v", name, err)
		}
		if _, err := launch(t.Context(), cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: it starts, or says something else: %v", name, err)
		}
		dev := *cfg
		dev.Env = "development"
		if err := dev.Check(); err != nil && strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: development is told %v", name, err)
		}
	}
}

func openFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestDoctorSaysTheSame checks that doctor lists all faults together, each with a
// remedy, in the words of serve's error.
func TestDoctorSaysTheSame(t *testing.T) {
	t.Parallel()
	args := []string{"--env=production", "--data-dir=" + openFolder(t), "--jwt-secret=k:" + base64.StdEncoding.EncodeToString(make([]byte, 32)),
		"--stripe-secret-key=sk_test_1", "--stripe-webhook-secret=whsec_1", "--master-db-url=postgres://u:hunter2@198.41.0.4:1/stoa?connect_timeout=1",
		"--port=99999", "--smtp-url=smtp://127.0.0.1:1"}
	status, _, refused := command(t, append([]string{"serve"}, args...)...)
	if status != 1 {
		t.Fatalf("serve: status %d", status)
	}
	status, out, _ := command(t, append([]string{"doctor", "--json"}, args...)...)
	var findings []cli.Finding
	if err := json.Unmarshal([]byte(out), &findings); err != nil || status != 1 {
		t.Fatalf("doctor: %d, %v: %s", status, err, out)
	}
	found := 0
	for _, f := range findings {
		if f.Check != "configuration" {
			continue
		}
		found++
		if f.OK || f.Remedy == "" || !strings.Contains(refused, f.Detail) {
			t.Errorf("%+v is not what serve says: %s", f, refused)
		}
	}
	if found != 9 || strings.Contains(out+refused, "hunter2") {
		t.Errorf("doctor finds %d faults of 9:\n%s\nserve: %s", found, out, refused)
	}
}

func TestFirstPublic(t *testing.T) {
	t.Parallel()
	private, mapped, public := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("::ffff:192.168.0.1"), netip.MustParseAddr("198.41.0.4")
	for want, list := range map[int][]netip.Addr{-1: {private, mapped}, 0: {public, private}, 2: {private, mapped, public}} {
		if got := config.FirstPublic(list); got != want {
			t.Errorf("%v: %d, want %d", list, got, want)
		}
	}
}
