package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/tenantdb"
)

// defect is something wrong with a setting, and what to do about it.
type defect struct{ name, text, remedy string }

func (f defect) Error() string { return f.name + " " + f.text }

// check returns all faults as one error. 'stoa doctor' shows the same with
// their remedies.
func (c *Config) check() error {
	var all []error
	for _, f := range c.faults() {
		all = append(all, f)
	}
	return errors.Join(all...)
}

// inEarnest lists what is tolerated in development only.
func (c *Config) inEarnest() []defect {
	const generate = "make keys with 'stoa keys generate' and keep the old ones behind the new: what they have sealed needs them"
	var out []defect
	keys := map[string]keyring.Secret{"ENCRYPTION_KEY": c.EncryptionKey, "JWT_SECRET": c.JWTSecret}
	for name, key := range keys {
		if key.IsZero() {
			out = append(out, defect{name, "is required in production", "make one with 'stoa keys generate'"})
			continue
		}
		ring, err := keyring.Parse(key)
		if err != nil {
			continue // which is a fault anywhere
		}
		if err := ring.Weak(); err != nil {
			out = append(out, defect{name, "can be guessed: " + err.Error(), generate})
		}
	}
	if sameKeys(c.EncryptionKey, c.JWTSecret) {
		out = append(out, defect{"JWT_SECRET", "is the ENCRYPTION_KEY: who learns one has both", generate})
	}
	out = append(out, c.earnestPayments()...)
	out = append(out, c.earnestSupabase()...)
	if hosts := publicHosts(masterdb.Plaintext(c.masterURL())); len(hosts) > 0 {
		out = append(out, defect{"MASTER_DB_URL", "lets passwords and data travel in plaintext to " + strings.Join(hosts, ", "),
			"add sslmode=verify-full, or sslmode=require when the server's certificate cannot be checked"})
	}
	if _, err := checkPrivate(c.DataDir); err != nil {
		out = append(out, defect{"STOA_DATA_DIR", err.Error(), "chmod 700 " + c.DataDir})
	}
	return out
}

func (c *Config) earnestPayments() []defect {
	var out []defect
	if c.StripeURL != "" {
		out = append(out, defect{"STOA_STRIPE_URL", "is for development only: it would be told of every payment", "take it away"})
	}
	if key := c.StripeSecretKey.Reveal(); strings.HasPrefix(key, "sk_test_") || strings.HasPrefix(key, "rk_test_") {
		out = append(out, defect{"STRIPE_SECRET_KEY", "is of Stripe's sandbox: credits would be had for no money", "use the live key, or none to sell nothing"})
	}
	// Stripe's are longer. With one that is known anybody can say that they have paid.
	if secret := c.StripeWebhookSecret.Reveal(); secret != "" && (!strings.HasPrefix(secret, "whsec_") || differentBytes(secret) < 12) {
		out = append(out, defect{"STRIPE_WEBHOOK_SECRET", "can be guessed", "copy the signing secret (whsec_…) from the webhook endpoint's page at Stripe"})
	}
	return out
}

func (c *Config) earnestSupabase() []defect {
	var out []defect
	if c.SupabaseURL != "" && !strings.HasPrefix(c.SupabaseURL, "https://") {
		out = append(out, defect{"STOA_SUPABASE_URL", "lets tokens travel in plaintext", "take it away: Supabase's own address is the default"})
	}
	if c.SupabasePooler != "" {
		out = append(out, defect{"STOA_SUPABASE_POOLER", "is for development only: every store at Supabase would be reached through it", "take it away"})
	}
	return out
}

// sameKeys reports whether two settings hold a key in common, under whatever
// ids.
func sameKeys(a, b keyring.Secret) bool {
	first, err := keyring.Parse(a)
	if err != nil {
		return false
	}
	second, err := keyring.Parse(b)
	return err == nil && first.Shares(second)
}

func differentBytes(s string) int {
	set := map[rune]bool{}
	for _, r := range s {
		set[r] = true
	}
	return len(set)
}

// publicHosts are those that have a public address. One that has none cannot be
// connected to, which is found soon enough.
func publicHosts(hosts []string) (public []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	for _, h := range hosts {
		addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", h)
		if err != nil {
			continue
		}
		if i := firstPublic(addresses); i >= 0 {
			public = append(public, fmt.Sprintf("%s (%s)", h, addresses[i].Unmap()))
		}
	}
	return public
}

func firstPublic(addresses []netip.Addr) int {
	for i, a := range addresses {
		if tenantdb.IsPublic(a.Unmap()) {
			return i
		}
	}
	return -1
}
