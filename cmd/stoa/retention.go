package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/accounts"
	"github.com/stoahq/stoa/apikeys"
	"github.com/stoahq/stoa/credits/feed"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/mail"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/payments"
	"github.com/stoahq/stoa/provisioning"
	"github.com/stoahq/stoa/stores"
)

// Retention is what can be set of how long records are kept.
type Retention struct {
	AuditRetention *time.Duration `name:"audit-retention" env:"STOA_AUDIT_RETENTION" help:"How long entries of the audit log are kept; 0s keeps them for ever. The master database remembers it. Unless told, as it has it: 9600h (400 days) at first." placeholder:"TIME" group:"config"`
	EventRetention time.Duration  `name:"event-retention" env:"STOA_EVENT_RETENTION" default:"2160h" help:"How long applied events of Stripe, earlier provisioning runs and announced low balances are kept; 0s keeps them for ever." placeholder:"TIME" group:"config"`
}

// minEventRetention is longer than the 30 days for which Stripe lists events
// that it could not deliver.
const minEventRetention = 31 * 24 * time.Hour

func (r *Retention) check(fault func(name, format string, args ...any)) {
	for name, c := range map[string]struct {
		set *time.Duration
		min time.Duration
	}{
		"STOA_AUDIT_RETENTION": {r.AuditRetention, access.MinRetention},
		"STOA_EVENT_RETENTION": {&r.EventRetention, minEventRetention},
	} {
		if c.set != nil && *c.set != 0 && (*c.set < c.min || *c.set > access.MaxRetention) {
			fault(name, "must be between %.0fh and %.0fh, or 0s for ever", c.min.Hours(), access.MaxRetention.Hours())
		}
	}
}

// deleteExpired is the job that deletes what was kept long enough.
type deleteExpired struct{}

// Kind implements jobs.Args.
func (deleteExpired) Kind() string { return "stoa.delete_expired" }

// How often the job is due, and how long one run may take. Ten minutes are
// enough for millions of rows; what is left goes in the next run.
const (
	deleteExpiredEvery   = time.Hour
	deleteExpiredTimeout = 10 * time.Minute
)

// expiries are the rules for everything that expires. docs/retention.md has
// them, and why all other tables are kept.
func (a *app) expiries(ctx context.Context) ([]masterdb.Expiry, error) {
	audit, err := access.Retention(ctx, a.master)
	return append(append(accounts.Expiries(accounts.DefaultRefreshTTL), apikeys.Expiries()...),
		access.Expiry(audit), payments.Expiry(a.cfg.EventRetention), provisioning.Expiry(a.cfg.EventRetention), feed.LowBalanceExpiry(a.cfg.EventRetention),
		stores.Expiry(), masterdb.ChangeLogExpiry(),
	), err
}

func (a *app) handleExpiry() {
	jobs.Handle(a.queue, deleteExpiredTimeout, a.deleteExpired)
	jobs.Every(a.queue, deleteExpiredEvery, deleteExpired{})
}

func (a *app) deleteExpired(ctx context.Context, _ deleteExpired) error {
	rules, err := a.expiries(ctx)
	if err != nil {
		return err
	}
	deleted, err := a.master.DeleteExpired(ctx, rules)
	for table, rows := range deleted {
		a.log.InfoContext(ctx, "expired rows deleted", "table", table, "rows", rows)
	}
	return errors.Join(err, mail.PurgeAllowances(ctx, a.master))
}

// setAuditRetention brings the setting, when it is given, to the database. A
// server whose role may not change it goes on with what the database has.
func setAuditRetention(ctx context.Context, cfg *Config, master *masterdb.DB, by access.Principal, log *slog.Logger) error {
	if cfg.AuditRetention == nil {
		return nil
	}
	err := access.SetRetention(ctx, master, by, *cfg.AuditRetention)
	if masterdb.IsForbidden(err) {
		log.WarnContext(ctx, "STOA_AUDIT_RETENTION is not the database's, and this role may not change it: "+
			"run 'stoa migrate' with it as the role that owns the master database")
		return nil
	}
	if err != nil {
		return fmt.Errorf("audit retention: %w", err)
	}
	return nil
}
