// Package payments sells credits. A purchase is paid at a checkout page. The payment
// provider then sends a signed event, which is stored, acknowledged and applied by a job.
//
// Events are not replayed: they only name the purchase. Apply reads the state of the
// purchase from Stripe (readState) and applies it to the master (applyState). So neither
// the order nor the number of deliveries of events matters. Reconcile detects the changes
// whose events were lost.
//
// The sandbox is the provider for development. Its Pay button signs the event that Stripe
// would send, and that event is applied in the same way. The sandbox has no API to read
// the state from, so the event's own data is used.
package payments

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tracing"
)

// Service sells credits. It is safe for concurrent use.
type Service struct {
	db     *masterdb.DB
	ledger *credits.Ledger
	queue  *jobs.Queue
	stripe *stripeClient // nil without a key
	cfg    Config

	metrics metrics
}

// Config is the operator's configuration.
type Config struct {
	// Sandbox enables the sandbox provider. It must not be used in production: its page
	// lets everyone "pay". It cannot be combined with StripeKey.
	Sandbox bool
	// StripeKey makes Stripe the provider: a secret or restricted API key.
	StripeKey keyring.Secret
	// StripeURL replaces Stripe's address, for a fake Stripe in development.
	StripeURL string
	// WebhookSecret signs events. Every replica needs the same secret, also after a
	// restart: one process may receive an event that another has signed.
	WebhookSecret keyring.Secret
	// CreditPrice is the price of one credit. Default 1 US cent.
	CreditPrice Price
	// BaseURL is the address of this platform for browsers, such as
	// "http://localhost:3000". The sandbox's checkout page is below it.
	BaseURL string
	// Log receives events that can never be applied. Default slog.Default.
	Log    *slog.Logger
	Tracer *tracing.Tracer // nil: requests to Stripe have no spans
}

// Price is the price of one whole credit.
type Price struct {
	MinorPerCredit int64  // in the currency's minor unit as Stripe counts it, such as cents
	Currency       string // ISO 4217, such as "USD"
}

// maxMinorPerCredit limits the price so that the price of the largest purchase fits in an
// int64.
const maxMinorPerCredit = 1_000_000

// New returns the service, or an error that lists every fault of cfg. The
// caller registers Apply with the queue:
//
//	jobs.Handle(queue, time.Minute, service.Apply)
func New(db *masterdb.DB, ledger *credits.Ledger, queue *jobs.Queue, cfg Config) (*Service, error) {
	if cfg.CreditPrice == (Price{}) {
		cfg.CreditPrice = Price{MinorPerCredit: 1, Currency: "USD"}
	}
	cfg.CreditPrice.Currency = strings.ToUpper(cfg.CreditPrice.Currency)
	cfg.BaseURL = strings.TrimRight(cfg.BaseURL, "/")
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("payments: %w", err)
	}
	s := &Service{db: db, ledger: ledger, queue: queue, cfg: cfg, metrics: newMetrics()}
	if !cfg.StripeKey.IsZero() {
		s.stripe = newStripeClient(cfg.StripeKey, cfg.StripeURL, countedTransport{http.DefaultTransport, s.metrics.requests, cfg.Tracer})
	}
	return s, nil
}

func (c Config) validate() error {
	var faults []error
	if err := c.CreditPrice.Check(); err != nil {
		faults = append(faults, fmt.Errorf("the price of a credit %w", err))
	}
	if err := CheckCurrency(c.CreditPrice.Currency); err != nil {
		faults = append(faults, fmt.Errorf("the currency %w", err))
	}
	sells := c.Sandbox || !c.StripeKey.IsZero()
	if sells && c.WebhookSecret.IsZero() {
		faults = append(faults, errors.New("events cannot be verified without a webhook secret"))
	}
	if c.Sandbox && !c.StripeKey.IsZero() {
		faults = append(faults, errors.New("there is no sandbox beside Stripe"))
	}
	if u, err := url.Parse(c.BaseURL); sells && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		faults = append(faults, fmt.Errorf("the base URL must begin with http:// or https:// and name a host, not %q", c.BaseURL))
	}
	return errors.Join(faults...)
}
