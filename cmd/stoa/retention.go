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

// deleteExpired is the job that deletes expired rows.
type deleteExpired struct{}

// Kind implements jobs.Args.
func (deleteExpired) Kind() string { return "stoa.delete_expired" }

// The interval of the job and the timeout of one run. Ten minutes are enough for
// millions of rows; the next run deletes the rest.
const (
	deleteExpiredEvery   = time.Hour
	deleteExpiredTimeout = 10 * time.Minute
)

// expiries returns the rules for all rows that expire. docs/retention.md lists them,
// and says why all other tables are kept.
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

// setAuditRetention stores the setting in the database if it is given. A server
// whose role may not change it uses the database's.
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
