package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/credits/feed"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/moves"
	"github.com/stoahq/stoa/internal/operations"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/traffic"
	"github.com/stoahq/stoa/internal/webhooks"
)

// DeleteExpired is the job that deletes expired rows.
type DeleteExpired struct{}

// Kind implements jobs.Args.
func (DeleteExpired) Kind() string { return "stoa.delete_expired" }

// These are the interval of the job and the timeout of one run. Ten minutes are enough for
// millions of rows; the next run deletes the remaining ones.
const (
	deleteExpiredEvery   = time.Hour
	deleteExpiredTimeout = 10 * time.Minute
)

// Expiries returns the rules for all rows that expire. docs/retention.md lists them,
// and says why all other tables are kept.
func (a *App) Expiries(ctx context.Context) ([]masterdb.Expiry, error) {
	keep, err := audit.Retention(ctx, a.Master)
	return append(slices.Concat(accounts.Expiries(accounts.DefaultRefreshTTL), apikeys.Expiries(), webhooks.Expiries()),
		audit.Expiry(keep), payments.Expiry(a.Cfg.EventRetention), provisioning.Expiry(a.Cfg.EventRetention), moves.Expiry(a.Cfg.EventRetention), feed.LowBalanceExpiry(a.Cfg.EventRetention),
		stores.Expiry(), masterdb.ChangeLogExpiry(), traffic.Expiry(), fleet.BulkActionExpiry(a.Cfg.EventRetention), operations.VerificationExpiry(a.Cfg.EventRetention),
		backups.RestoreExpiry(a.Cfg.EventRetention),
	), err
}

func (a *App) handleExpiry() {
	jobs.Handle(a.Queue, deleteExpiredTimeout, a.DeleteExpired)
	jobs.Every(a.Queue, deleteExpiredEvery, DeleteExpired{})
}

// DeleteExpired is the handler of the job that deletes expired rows.
func (a *App) DeleteExpired(ctx context.Context, _ DeleteExpired) error {
	rules, err := a.Expiries(ctx)
	if err != nil {
		return err
	}
	deleted, err := a.Master.DeleteExpired(ctx, rules)
	for table, rows := range deleted {
		a.Log.InfoContext(ctx, "expired rows deleted", "table", table, "rows", rows)
	}
	return errors.Join(err, mail.PurgeAllowances(ctx, a.Master))
}

// SetAuditRetention stores the setting in the database if it is given. A server
// whose role may not change it uses the database's.
func SetAuditRetention(ctx context.Context, cfg *config.Config, master *masterdb.DB, by authz.Principal, log *slog.Logger) error {
	if cfg.AuditRetention == nil {
		return nil
	}
	err := audit.SetRetention(ctx, master, by, *cfg.AuditRetention)
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
