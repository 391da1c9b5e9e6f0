// Package app wires the domains together: a configuration becomes a running server,
// which is drained and stopped in order. End-to-end tests of the platform are here.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/feed"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/idempotency"
	"github.com/stoahq/stoa/internal/imports"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/moves"
	"github.com/stoahq/stoa/internal/operations"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/presence"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/ratelimit"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/supabase/link"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tracing"
	"github.com/stoahq/stoa/internal/traffic"
	"github.com/stoahq/stoa/internal/webhooks"
)

// App is every domain, wired together in one place.
type App struct {
	Cfg          *config.Config
	Log          *slog.Logger
	Master       *masterdb.DB
	presence     *presence.Process
	Queue        *jobs.Queue
	Tenants      *tenantdb.Manager
	Ledger       *credits.Ledger
	Hostnames    *hostnames.Service
	Registry     *stores.Registry
	Accounts     *accounts.Accounts
	Payments     *payments.Service
	cloud        *link.Service
	Provisioning *provisioning.Service
	Moves        *moves.Service
	Backups      *backups.Service
	idempotency  *idempotency.Store
	Fleet        *fleet.Service
	bulk         *fleet.Bulk
	operations   *operations.Service
	Imports      *imports.Service
	traffic      *traffic.Service
	mail         *mail.Sender
	feed         *feed.Feed
	Webhooks     *webhooks.Service
	limits       *ratelimit.Limiter
	Memory       *ratelimit.ByteBudget
	outage       outage
	tracer       *tracing.Tracer // nil: tracing is off
	started      time.Time
	draining     chan struct{} // closed when the server is told to stop

	stopListening func() // to other replicas; see listen
}

// NewApp opens the master database, migrates it and builds the domains.
// publicURL is the platform's public address.
func NewApp(ctx context.Context, cfg *config.Config, log *slog.Logger, publicURL string) (*App, error) {
	encryption, signing, err := openKeys(cfg)
	if err != nil {
		return nil, err
	}
	master, err := openMaster(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	a := &App{Cfg: cfg, Log: log, Master: master, Memory: cfg.Memory(), started: time.Now(), draining: make(chan struct{}), stopListening: func() {}}
	if a.tracer, err = cfg.Tracer(ctx, log); err != nil {
		master.Close()
		return nil, err
	}
	master.Trace(a.tracer)
	if err := a.buildServices(encryption); err != nil {
		master.Close()
		return nil, err
	}
	if err := a.buildDomains(publicURL, encryption, signing); err != nil {
		return nil, errors.Join(err, a.Close(ctx))
	}
	a.registerJobs(publicURL)
	a.releaseEnded()
	return a, nil
}

// openKeys checks the configuration and the data directory, and returns the keys for
// encryption and for signing.
func openKeys(cfg *config.Config) (encryption, signing *keyring.Ring, err error) {
	if err := cfg.Check(); err != nil {
		return nil, nil, fmt.Errorf("configuration:\n%w", err)
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("data directory: %w", config.NewUnwritable(cfg.DataDir, err))
	}
	if err := cfg.CheckDirs(); err != nil {
		return nil, nil, fmt.Errorf("data directory: %w", err)
	}
	return cfg.Rings()
}

// openMaster opens the master database and migrates it.
func openMaster(ctx context.Context, cfg *config.Config, log *slog.Logger) (*masterdb.DB, error) {
	master, err := cfg.OpenMasterDB(ctx)
	if err != nil {
		return nil, err
	}
	if err := migrateMaster(ctx, master, log); err != nil {
		master.Close()
		return nil, err
	}
	if master.Engine == masterdb.Postgres {
		masterdb.LogSkew(ctx, log, master.Skew())
	}
	return master, nil
}

// buildServices builds what the domains use: queue, connection manager, mail, limits.
func (a *App) buildServices(encryption *keyring.Ring) error {
	cfg := a.Cfg
	a.watchMaster()
	a.presence = presence.New(a.Master, a.Log)
	var err error
	if a.Queue, err = jobs.New(a.Master, a.Log, jobs.Options{Drain: cfg.FinishTime(), Process: a.presence.Name(), Tracer: a.tracer}); err != nil {
		return err
	}
	if a.Tenants, err = newTenants(cfg, a.Master, encryption, a.Memory, a.Log, a.tracer); err != nil {
		return err
	}
	if a.mail, err = cfg.Mail(a.Log, a.tracer); err != nil {
		return err
	}
	if a.limits, err = cfg.Limiter(a.Log); err != nil {
		return err
	}
	return nil
}

// buildDomains builds the domains, each from those below it.
func (a *App) buildDomains(publicURL string, encryption, signing *keyring.Ring) error {
	cfg := a.Cfg
	a.Ledger = credits.New(a.Master)
	a.feed = feed.New(a.Master, a.Ledger, a.Queue, a.Log)
	networks, err := cfg.AllowedNetworks()
	if err != nil {
		return err
	}
	a.Webhooks = webhooks.New(a.Master, a.Ledger, a.Queue, webhooks.Options{
		Process: a.presence.Name(), Ring: encryption, Dialer: dial.Dialer{Allow: networks, PublicPlaintext: cfg.Development()}, Mail: a.mail, URL: publicURL,
		Limit: cfg.Limits().Webhooks, Log: a.Log, Tracer: a.tracer,
	})
	a.idempotency = idempotency.New(a.Master, encryption)
	a.Hostnames = hostnames.New(a.Master, cfg.BaseDomain, a.Log)
	a.Hostnames.SetMaxStale(cfg.ServeStale)
	a.Hostnames.LimitPerStore(cfg.Limits().Hostnames)
	a.Hostnames.ReservePlatformHosts(cfg.AllPlatformHosts(publicURL))
	a.Hostnames.UseDNS(cfg.DNSServer)
	a.Registry = stores.New(a.Master, a.Ledger, a.Tenants, a.Queue, a.Hostnames, a.Log)
	a.traffic = traffic.New(a.Master, a.Log)
	a.Registry.CountTraffic(a.traffic)
	a.Registry.KeepDeleted(cfg.DeletionGrace)
	a.Registry.KeepSlugs(cfg.KeepSlugs)
	a.Registry.UseQuotas(cfg.Limits())
	a.Accounts = accounts.New(a.Master, a.Registry, signing, accounts.Options{
		AccessTTL: cfg.JWTExpiresIn, Encryption: encryption, Queue: a.Queue, Mail: a.mail, BaseURL: publicURL, Limits: a.limits,
		Quotas:             cfg.Limits(),
		InvitationsPerHour: cfg.InvitationsPerHour,
	})
	sales := cfg.Sales(publicURL, signing, a.Log)
	sales.Tracer = a.tracer
	a.Payments, err = payments.New(a.Master, a.Ledger, a.Queue, sales)
	if err != nil {
		return err
	}
	a.cloud = link.New(a.Master, encryption, a.Tenants, link.Options{API: cfg.Supabase(), Redirect: publicURL + "/api/supabase/callback", Process: a.presence.Name(), Log: a.Log})
	a.Registry.UseCloud(a.cloud)
	a.Provisioning = provisioning.New(a.Master, a.Registry, a.Tenants, a.Queue, a.Log, provisioning.Options{
		Lease: cfg.ProvisioningClaim, Process: a.presence.Name(), Cloud: a.cloud, Quotas: cfg.Limits(), Drain: cfg.FinishTime(),
	})
	a.Moves = moves.New(a.Master, a.Registry, a.Tenants, a.Provisioning, a.Queue, a.Log, moves.Options{
		Keep: cfg.MoveKeep, Lease: cfg.ProvisioningClaim, Process: a.presence.Name(), MaxContent: cfg.MaxContent(),
	})
	if a.Backups, err = a.newBackups(encryption); err != nil {
		return err
	}
	a.Fleet = fleet.New(a.Master, a.Tenants, a.Log, fleet.Options{Paused: cfg.HoldTenantMigrations})
	a.bulk = fleet.NewBulk(a.Fleet, a.Registry, a.Queue)
	a.operations = operations.New(a.Master, a.Queue, a.Ledger, a.Fleet)
	a.Imports = imports.New(a.Master, a.Accounts, a.Registry, a.Tenants, a.Provisioning, a.Log)
	return nil
}

// newBackups returns the service of archives.
func (a *App) newBackups(encryption *keyring.Ring) (*backups.Service, error) {
	storage, err := a.Cfg.ArchiveStorage()
	if err != nil {
		return nil, err
	}
	recipients, err := a.Cfg.ArchiveRecipients()
	if err != nil {
		return nil, err
	}
	schedule, err := a.Cfg.ArchiveSchedule()
	return backups.New(a.Master, a.Registry, a.Tenants, a.Provisioning, a.Queue, storage, encryption, a.Log, backups.Options{
		Recipients: recipients, Schedule: schedule, KeepDeleted: a.Cfg.KeepDeletedStores, Process: a.presence.Name(), MaxContent: a.Cfg.MaxContent(),
	}), err
}

// registerJobs registers the handlers and schedules of all jobs.
func (a *App) registerJobs(publicURL string) {
	jobs.Handle(a.Queue, link.RevokeTimeout, a.cloud.RunRevocations)
	jobs.Every(a.Queue, link.RevokeEvery, link.RevokeTokens{})
	jobs.Handle(a.Queue, fleet.Timeout, a.Fleet.Run)
	jobs.Handle(a.Queue, fleet.Timeout, a.bulk.Run)
	if !a.Cfg.HoldTenantMigrations {
		jobs.Every(a.Queue, fleet.Interval, a.Fleet.Job())
	}
	jobs.Handle(a.Queue, operations.VerifyTimeout, a.operations.RunVerification)
	jobs.Handle(a.Queue, provisioning.Timeout, a.Provisioning.Provision)
	jobs.Handle(a.Queue, provisioning.FinishResetTimeout, a.Provisioning.FinishReset)
	jobs.Handle(a.Queue, moves.Timeout, a.Moves.Run)
	a.Backups.Register()
	jobs.Handle(a.Queue, stores.SyncIdentityTimeout, a.Registry.SyncIdentity)
	jobs.Handle(a.Queue, stores.DeleteStoreTimeout, a.Registry.FinishDeletion)
	jobs.Handle(a.Queue, hostnames.RecheckTimeout, a.Hostnames.Recheck)
	jobs.Every(a.Queue, hostnames.RecheckInterval, hostnames.Recheck{})
	a.Accounts.HandleMails(a.Queue)
	jobs.Handle(a.Queue, accounts.PurgeTimeout, a.Accounts.PurgeExpired) // earlier releases enqueue such jobs
	a.handleExpiry()
	a.handlePayments()
	a.followCredits(publicURL)
	jobs.Handle(a.Queue, time.Minute, a.Webhooks.MailDisabled)
	jobs.Handle(a.Queue, webhooks.SweepTimeout, a.Webhooks.Sweep)
	jobs.Every(a.Queue, webhooks.SweepEvery, webhooks.Sweep{})
	jobs.Handle(a.Queue, credits.SweepTimeout, a.Ledger.Sweep)
	jobs.Every(a.Queue, credits.SweepEvery, credits.Sweep{})
	jobs.Handle(a.Queue, credits.SummarizeTimeout, a.Ledger.SummarizeAll)
	jobs.Every(a.Queue, credits.SummarizeEvery, credits.Summarize{})
	jobs.Handle(a.Queue, stores.CountStoresTimeout, a.Registry.CountAll)
	jobs.Every(a.Queue, stores.CountStoresEvery, stores.CountStores{})
}

// releaseEnded registers the functions that release the work of a process that has ended.
// Jobs are released first, so that a provisioning run whose job runs again gets no second
// job.
func (a *App) releaseEnded() {
	a.presence.OnProcessEnd(a.Queue.Release)
	a.presence.OnProcessEnd(a.Provisioning.Recovery().Release)
	a.presence.OnProcessEnd(a.Moves.Recovery().Release)
	a.presence.OnProcessEnd(a.cloud.Release)
	a.presence.OnProcessEnd(a.Backups.Release)
	a.presence.OnProcessEnd(a.Webhooks.Release)
	a.presence.OnProcessEnd(func(ctx context.Context, tx *masterdb.Tx, _ string) error { // accounts that the process had marked in memory
		if err := a.Queue.EnqueueOnce(ctx, tx, webhooks.Sweep{}); err != nil {
			return err
		}
		return a.Queue.EnqueueOnce(ctx, tx, feed.Sweep{})
	})
}

// followCredits registers the consumers of credit changes: low-balance warnings and
// the copies in the stores' databases.
func (a *App) followCredits(publicURL string) {
	lowBalance := feed.NewLowBalanceNotifier(a.Master, a.feed, a.Queue, a.mail, publicURL)
	jobs.Handle(a.Queue, time.Minute, lowBalance.Announce)
	jobs.Handle(a.Queue, time.Minute, lowBalance.Mail)
	a.Registry.FollowCredits(a.feed)
	jobs.Handle(a.Queue, stores.SyncCreditsTimeout, a.Registry.SyncCredits)
	jobs.Handle(a.Queue, time.Minute, a.feed.Sweep)
	jobs.Every(a.Queue, feed.SweepEvery, feed.Sweep{})
}

func (a *App) handlePayments() {
	jobs.Handle(a.Queue, time.Minute, a.Payments.Apply)
	jobs.Handle(a.Queue, time.Minute, a.Payments.Recharge)
	jobs.Handle(a.Queue, time.Minute, a.Payments.QueueRecharges)
	jobs.Handle(a.Queue, payments.ReconcileTimeout, a.Payments.RunReconcile)
	if !a.Cfg.StripeSecretKey.IsZero() {
		a.Payments.FollowCredits(a.feed)
		jobs.Every(a.Queue, payments.RechargeDueEvery, payments.RechargeDue{})
		jobs.Every(a.Queue, payments.ReconcileEvery, payments.Reconcile{})
	}
}

// NewTenants returns the manager of the tenant databases.
func NewTenants(cfg *config.Config, master *masterdb.DB, encryption *keyring.Ring, memory *ratelimit.ByteBudget, log *slog.Logger) (*tenantdb.Manager, error) {
	return newTenants(cfg, master, encryption, memory, log, nil)
}

func newTenants(cfg *config.Config, master *masterdb.DB, encryption *keyring.Ring, memory *ratelimit.ByteBudget, log *slog.Logger, tracer *tracing.Tracer) (*tenantdb.Manager, error) {
	networks, err := cfg.AllowedNetworks()
	if err != nil {
		return nil, err
	}
	rules, err := cfg.SupabaseRules()
	if err != nil {
		return nil, err
	}
	managed, err := cfg.ManagedServer()
	if err != nil {
		return nil, err
	}
	own, err := tenantdb.LoadCustomMigrations(cfg.TenantMigrations)
	if err != nil {
		return nil, err
	}
	files := cfg.FileShares()
	return tenantdb.NewManager(master, encryption, tenantdb.Options{
		DataDir: cfg.DataDir, MaxEmbedded: files.Embedded, ConnsPerEmbedded: files.ConnsPerStore,
		ConnsPerServer: cfg.ConnsPerServer, ConnsPerStore: cfg.ConnsPerStore,
		Dialer:   dial.Dialer{Allow: networks, PublicPlaintext: cfg.Development()},
		Supabase: rules,
		Managed:  managed,
		Custom:   own,
		Memory:   memory,

		ServeStale: max(cfg.ServeStale, 1), // 0 would select the default
		Log:        log,
		Tracer:     tracer,
	}), nil
}

// StartProvisioning makes this process execute provisioning runs as a server does, and take
// over those of a process that was killed. It runs no jobs. Stop a.Provisioning before Close.
func (a *App) StartProvisioning(ctx context.Context) error {
	if err := a.presence.Start(ctx); err != nil {
		return err
	}
	a.Provisioning.Start(ctx)
	return nil
}

// listen starts the background work beside requests and jobs, until stop is called: it
// receives the changes of other replicas, and finds work that they have left. The domains
// must have subscribed before.
func (a *App) listen(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // requests that finish during a stop need the changes as well
	var running sync.WaitGroup
	running.Go(func() { a.Master.Listen(ctx, a.Log) })
	running.Go(func() { a.Master.WatchSkew(ctx, a.Log) })
	running.Go(func() { a.Provisioning.Recovery().Watch(ctx) })
	running.Go(func() { a.Moves.Recovery().Watch(ctx) })
	running.Go(func() { a.feed.Run(ctx) })
	running.Go(func() { a.traffic.Run(ctx) })
	running.Go(func() { a.Webhooks.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}
