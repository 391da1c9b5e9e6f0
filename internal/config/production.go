package config

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
)

// Defect is a fault of a setting, with its remedy.
type Defect struct{ Name, text, Remedy string }

func (f Defect) Error() string { return f.Name + " " + f.text }

// Check returns all faults as one error. Each line begins with the setting's
// environment variable.
func (c *Config) Check() error {
	var all []error
	for _, f := range c.Faults() {
		all = append(all, f)
	}
	return errors.Join(all...)
}

// productionFaults returns what is allowed in development only.
func (c *Config) productionFaults() []Defect {
	const generate = "make keys with 'stoa keys generate' and keep the old ones behind the new: what they have sealed needs them"
	var out []Defect
	keys := map[string]keyring.Secret{"ENCRYPTION_KEY": c.EncryptionKey, "JWT_SECRET": c.JWTSecret}
	for name, key := range keys {
		if key.IsZero() {
			out = append(out, Defect{Name: name, text: "is required in production", Remedy: "make one with 'stoa keys generate'"})
			continue
		}
		ring, err := keyring.Parse(key)
		if err != nil {
			continue // a fault in development as well
		}
		if err := ring.Weak(); err != nil {
			out = append(out, Defect{Name: name, text: "can be guessed: " + err.Error(), Remedy: generate})
		}
	}
	if sameKeys(c.EncryptionKey, c.JWTSecret) {
		out = append(out, Defect{Name: "JWT_SECRET", text: "is the ENCRYPTION_KEY: who learns one has both", Remedy: generate})
	}
	out = append(out, c.productionPlaceFaults()...)
	out = append(out, c.productionPaymentFaults()...)
	out = append(out, c.productionSupabaseFaults()...)
	for _, s := range []struct{ name, url string }{{"MASTER_DB_URL", c.MasterURL()}, {"MASTER_DB_SESSION_URL", c.MasterSessionURL()}} {
		if hosts := publicHosts(masterdb.Plaintext(s.url)); len(hosts) > 0 {
			out = append(out, Defect{Name: s.name, text: "lets passwords and data travel in plaintext to " + strings.Join(hosts, ", "),
				Remedy: "add sslmode=verify-full, or sslmode=require when the server's certificate cannot be checked"})
		}
	}
	if _, err := CheckPrivate(c.DataDir); err != nil {
		out = append(out, Defect{Name: "STOA_DATA_DIR", text: err.Error(), Remedy: "chmod 700 " + c.DataDir})
	}
	return out
}

// productionPlaceFaults returns the places that are assumed in development: where the
// master database is, and by which names the platform and its stores are reached.
func (c *Config) productionPlaceFaults() []Defect {
	var out []Defect
	if c.MasterDBURL.IsZero() {
		out = append(out, Defect{Name: "MASTER_DB_URL", text: "is required in production",
			Remedy: "name the database: postgres://…, or sqlite:PATH for a platform of one process"})
	}
	if c.BaseDomain == localDomain {
		out = append(out, Defect{Name: "STOA_BASE_DOMAIN", text: "is required in production: only this machine reaches stores at " + localDomain,
			Remedy: "set the domain whose wildcard record leads here: stores are at <slug>.<it>"})
	}
	if c.BaseURL == "" {
		out = append(out, Defect{Name: "STOA_BASE_URL", text: "is required in production: links in mails, sign-ins and webhooks name it",
			Remedy: "set the address at which people open the platform, such as https://shops.example.com"})
	}
	return out
}

func (c *Config) productionPaymentFaults() []Defect {
	var out []Defect
	if c.StripeURL != "" {
		out = append(out, Defect{Name: "STOA_STRIPE_URL", text: "is for development only: it would be told of every payment", Remedy: "remove it"})
	}
	if key := c.StripeSecretKey.Reveal(); strings.HasPrefix(key, "sk_test_") || strings.HasPrefix(key, "rk_test_") {
		out = append(out, Defect{Name: "STRIPE_SECRET_KEY", text: "is of Stripe's sandbox: credits would be had for no money", Remedy: "use the live key, or none to sell nothing"})
	}
	// Stripe's secrets are longer. Everyone who knows the secret can forge payment events.
	if secret := c.StripeWebhookSecret.Reveal(); secret != "" && (!strings.HasPrefix(secret, "whsec_") || differentBytes(secret) < 12) {
		out = append(out, Defect{Name: "STRIPE_WEBHOOK_SECRET", text: "can be guessed", Remedy: "copy the signing secret (whsec_…) from the webhook endpoint's page at Stripe"})
	}
	return out
}

func (c *Config) productionSupabaseFaults() []Defect {
	var out []Defect
	if c.SupabaseURL != "" && !strings.HasPrefix(c.SupabaseURL, "https://") {
		out = append(out, Defect{Name: "STOA_SUPABASE_URL", text: "lets tokens travel in plaintext", Remedy: "remove it: Supabase's own address is the default"})
	}
	if c.SupabasePooler != "" {
		out = append(out, Defect{Name: "STOA_SUPABASE_POOLER", text: "is for development only: every store at Supabase would be reached through it", Remedy: "remove it"})
	}
	return out
}

// sameKeys reports whether two settings have a key in common, under any ids.
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

// publicHosts returns the hosts that have a public address. It leaves out hosts whose
// name cannot be resolved.
func publicHosts(hosts []string) (public []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	for _, h := range hosts {
		addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", h)
		if err != nil {
			continue
		}
		if i := FirstPublic(addresses); i >= 0 {
			public = append(public, fmt.Sprintf("%s (%s)", h, addresses[i].Unmap()))
		}
	}
	return public
}

// FirstPublic returns the index of the first public address, or -1.
func FirstPublic(addresses []netip.Addr) int {
	for i, a := range addresses {
		if dial.IsPublic(a.Unmap()) {
			return i
		}
	}
	return -1
}
