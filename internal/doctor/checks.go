package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/idempotency"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/keyrotation"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/supabase/link"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/managed"
	"github.com/stoahq/stoa/internal/webhooks"
)

// checkPlatformHosts finds stores with a slug or hostname that the platform itself has used
// since.
func checkPlatformHosts(ctx context.Context, cfg *config.Config, master *masterdb.DB) []Finding {
	const check = "platform hosts"
	hosts := cfg.AllPlatformHosts(cfg.PublicURL(cfg.Port))
	found, err := hostnames.Collisions(ctx, master, cfg.BaseDomain, hosts)
	switch {
	case err != nil:
		return []Finding{{Check: check, Detail: err.Error(), Remedy: "see that the master database answers"}}
	case len(found) == 0:
		return []Finding{{Check: check, OK: true, Detail: "no store has a name of theirs"}}
	}
	var out []Finding
	for _, s := range found {
		out = append(out, Finding{
			Check: check, Store: s.StoreID.String(), Name: s.Slug,
			Detail: fmt.Sprintf("the store %s (%s) has the platform's host %s, which leads to the platform alone", s.Slug, s.StoreID, s.Host),
			Remedy: "have the store's owner choose another slug or hostname, or take the host out of STOA_BASE_URL and STOA_PLATFORM_HOSTS",
		})
	}
	return out
}

// CheckSupabase checks the OAuth application at Supabase.
func CheckSupabase(ctx context.Context, cfg *config.Config) (string, error) {
	api := cfg.Supabase()
	if api == nil {
		return "no OAuth application: projects are connected by connection string only", nil
	}
	return "Supabase accepts the OAuth application", api.Check(ctx)
}

// checkManaged checks that managed databases can be created on the operator's
// server.
func checkManaged(ctx context.Context, server *credential.Server) (string, error) {
	m := tenantdb.NewManager(nil, nil, tenantdb.Options{Managed: server})
	defer m.Close(ctx) //nolint:errcheck // no connection is in use
	version, err := managed.New(nil, m).CheckServer(ctx)
	if err != nil {
		return "", fmt.Errorf("%s: %w", server, err)
	}
	return fmt.Sprintf("%s (%s) makes databases and roles", server, version), nil
}

// checkArchives writes, reads and deletes an object in the storage of archives.
func checkArchives(ctx context.Context, cfg *config.Config) (string, error) {
	storage, err := cfg.ArchiveStorage()
	if err != nil {
		return "", err
	}
	if cfg.BackupStorage == "" {
		return "in the data directory, with which they would be lost", nil
	}
	notes, err := storage.Check(ctx)
	return strings.Join(append([]string{"can be written, read and deleted."}, notes...), " "), err
}

// checkPayments checks the payment provider.
func checkPayments(ctx context.Context, cfg *config.Config) (string, error) {
	key := cfg.StripeSecretKey
	switch {
	case cfg.Sandbox():
		return "the sandbox: no money moves", nil
	case key.IsZero():
		return "no provider: credits cannot be bought", nil
	}
	mode := "live"
	if strings.Contains(key.Reveal(), "_test_") {
		mode = "test"
	}
	if err := payments.CheckStripe(ctx, key, cfg.StripeURL); err != nil {
		return "", err
	}
	if cfg.StripeWebhookSecret.IsZero() {
		return "", errors.New("STRIPE_WEBHOOK_SECRET is not set: no purchase would be noticed before the next day")
	}
	return "Stripe accepts the key (" + mode + " mode); the webhook secret is set", nil
}

// checkPurchases checks that no purchase is waiting for a refund.
func checkPurchases(ctx context.Context, master *masterdb.DB) (string, error) {
	n, err := payments.CountMismatched(ctx, master)
	if err != nil {
		return "", err
	}
	if n > 0 {
		return "", fmt.Errorf("%d purchases were paid with another amount or currency than they cost, and granted no credits", n)
	}
	return "every payment is the price of its purchase", nil
}

// checkUsers finds users whose e-mail address can be mistaken for another user's.
func checkUsers(ctx context.Context, master *masterdb.DB) (string, error) {
	irregular, err := accounts.IrregularEmails(ctx, master)
	if err != nil {
		return "", err
	}
	operators, err := accounts.ListUsers(ctx, master, "admin", stoa.UserID{}, 500)
	if err != nil {
		return "", err
	}
	var faults []string
	for _, u := range operators {
		if !u.EmailVerified {
			faults = append(faults, fmt.Sprintf("%s is an operator and has not proven the address %q", u.ID, u.Email))
		}
	}
	for _, u := range irregular[:min(len(irregular), 20)] {
		faults = append(faults, fmt.Sprintf("%s has the address %+q, which can be mistaken for another", u.ID, u.Email))
	}
	if n := len(irregular) - 20; n > 0 {
		faults = append(faults, fmt.Sprintf("%d more have such addresses", n))
	}
	if len(faults) > 0 {
		return "", errors.New(strings.Join(faults, "; "))
	}
	return "every address stands for one person, every operator's is proven", nil
}

// checkMail signs in to the mail server, if there is one, and sends nothing.
func checkMail(ctx context.Context, cfg *config.Config) (string, error) {
	sender, err := cfg.Mail(nil, nil)
	if err != nil {
		return "", err
	}
	if !cfg.SMTPURL.IsZero() {
		if err := sender.Check(ctx); err != nil {
			return "", err
		}
	}
	return sender.Describe(), nil
}

// checkKeys checks the keys. It generates none.
func checkKeys(cfg *config.Config) (string, error) {
	if cfg.Development() && (cfg.EncryptionKey.IsZero() || cfg.JWTSecret.IsZero()) && config.Missing(cfg.KeyFile()) {
		return "not made yet; 'stoa serve' makes them in development", nil
	}
	encryption, signing, err := cfg.Rings()
	if err != nil {
		return "", err
	}
	if err := roundTrip(encryption); err != nil {
		return "", err
	}
	encryptionID, _ := encryption.Current()
	signingID, _ := signing.Current()
	return fmt.Sprintf("encrypting with %q, signing with %q; a round trip works", encryptionID, signingID), nil
}

// checkSealed checks that the keys with which the data was encrypted are configured.
func checkSealed(ctx context.Context, cfg *config.Config, master *masterdb.DB) (string, error) {
	if cfg.Development() && cfg.EncryptionKey.IsZero() && config.Missing(cfg.KeyFile()) {
		return "", nil
	}
	encryption, _, err := cfg.Rings()
	if err != nil {
		return "", nil // checkKeys reports it
	}
	counts, err := keyrotation.Counts(ctx, master, SealedColumns())
	var lost, needed int64
	for _, c := range counts {
		if i := slices.Index(encryption.IDs(), c.KeyID); i < 0 {
			lost += c.Rows
		} else if i > 0 {
			needed += c.Rows
		}
	}
	switch {
	case err != nil:
		return "", err
	case lost > 0:
		return "", fmt.Errorf("%d rows are encrypted with keys that are missing here", lost)
	case needed > 0:
		return fmt.Sprintf("%d rows are encrypted with an older key; 'stoa keys rotate' changes that", needed), nil
	}
	return "all with the first key", nil
}

func roundTrip(ring *keyring.Ring) error {
	const plain, owner = "a secret", "doctor"
	sealed, err := ring.Seal([]byte(plain), owner)
	if err != nil {
		return err
	}
	opened, err := ring.Open(sealed, owner)
	if err != nil {
		return err
	}
	if string(opened) != plain {
		return errors.New("encryption does not give back what was put in")
	}
	return nil
}

// SchemaRemedy returns the remedy for an error of checkSchema.
func SchemaRemedy(err error) string {
	if errors.Is(err, masterdb.ErrSchemaTooNew) {
		return "start the newer release here; to go back to this one, restore the backup from before the upgrade"
	}
	if errors.Is(err, masterdb.ErrRestoreIncomplete) {
		return "wait until 'stoa restore --master' has ended; if it was interrupted, run it again"
	}
	return "run 'stoa migrate'"
}

// SealedColumns returns all columns of the master database that hold encrypted values. A
// test checks that no other column holds an envelope.
func SealedColumns() []keyrotation.Column {
	return slices.Concat([]keyrotation.Column{tenantdb.SealedCredentials(), accounts.SealedFactors(), backups.SealedKeys(), idempotency.Sealed()}, tenantdb.SealedMoves(), link.Sealed(), webhooks.SealedSecrets())
}
