package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/stoahq/stoa/accounts"
	"github.com/stoahq/stoa/cloud"
	"github.com/stoahq/stoa/credits"
	"github.com/stoahq/stoa/credits/feed"
	"github.com/stoahq/stoa/fleet"
	"github.com/stoahq/stoa/hostnames"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/limits"
	"github.com/stoahq/stoa/mail"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/payments"
	"github.com/stoahq/stoa/presence"
	"github.com/stoahq/stoa/provisioning"
	"github.com/stoahq/stoa/stores"
	"github.com/stoahq/stoa/tenantdb"
)

// app is every domain, wired together in one place.
type app struct {
	cfg          *Config
	log          *slog.Logger
	master       *masterdb.DB
	presence     *presence.Process
	queue        *jobs.Queue
	tenants      *tenantdb.Manager
	ledger       *credits.Ledger
	hostnames    *hostnames.Service
	registry     *stores.Registry
	accounts     *accounts.Accounts
	payments     *payments.Service
	cloud        *cloud.Service
	provisioning *provisioning.Service
	fleet        *fleet.Service
	mail         *mail.Sender
	feed         *feed.Feed
	limits       *limits.Limiter
	memory       *limits.ByteBudget
	outage       outage
	started      time.Time
	draining     chan struct{} // closed when the server is told to stop

	stopListening func() // to other replicas; see listen
}

// newApp opens the master database, migrates it and builds the domains.
// publicURL is the platform's public address.
func newApp(ctx context.Context, cfg *Config, log *slog.Logger, publicURL string) (*app, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("configuration:\n%w", err)
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", newUnwritable(cfg.DataDir, err))
	}
	if err := cfg.checkDirs(); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	encryption, signing, err := cfg.rings()
	if err != nil {
		return nil, err
	}
	master, err := cfg.openMasterDB(ctx)
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
	a := &app{cfg: cfg, log: log, master: master, memory: cfg.memory(), started: time.Now(), draining: make(chan struct{}), stopListening: func() {}}
	a.watchMaster()
	a.presence = presence.New(master, log)
	if a.queue, err = jobs.New(master, log, jobs.Options{Drain: cfg.finishTime(), Process: a.presence.Name()}); err != nil {
		master.Close()
		return nil, err
	}
	if a.tenants, err = newTenants(cfg, master, encryption, a.memory, log); err != nil {
		master.Close()
		return nil, err
	}
	if a.mail, err = cfg.mail(log); err != nil {
		master.Close()
		return nil, err
	}
	if a.limits, err = cfg.limiter(log); err != nil {
		master.Close()
		return nil, err
	}
	a.ledger = credits.New(master)
	a.feed = feed.New(master, a.ledger, a.queue, log)
	a.hostnames = hostnames.New(master, cfg.BaseDomain, log)
	a.hostnames.SetMaxStale(cfg.ServeStale)
	a.hostnames.LimitPerStore(cfg.limits().Hostnames)
	a.hostnames.ReservePlatformHosts(cfg.platformHosts(publicURL))
	a.hostnames.UseDNS(cfg.DNSServer)
	a.registry = stores.New(master, a.ledger, a.tenants, a.queue, a.hostnames, log)
	a.registry.KeepDeleted(cfg.DeletionGrace)
	a.registry.KeepSlugs(cfg.KeepSlugs)
	a.registry.UseQuotas(cfg.limits())
	a.accounts = accounts.New(master, a.registry, signing, accounts.Options{
		AccessTTL: cfg.JWTExpiresIn, Encryption: encryption, Queue: a.queue, Mail: a.mail, BaseURL: publicURL, Limits: a.limits,
		Quotas:             cfg.limits(),
		InvitationsPerHour: cfg.InvitationsPerHour,
	})
	a.payments, err = payments.New(master, a.ledger, a.queue, cfg.sales(publicURL, signing, log))
	if err != nil {
		return nil, errors.Join(err, a.close(ctx))
	}
	a.cloud = cloud.New(master, encryption, a.tenants, cloud.Options{API: cfg.supabase(), Redirect: publicURL + "/api/supabase/callback", Process: a.presence.Name(), Log: log})
	a.registry.UseCloud(a.cloud)
	a.provisioning = provisioning.New(master, a.registry, a.tenants, a.queue, log, provisioning.Options{
		Lease: cfg.ProvisioningClaim, Process: a.presence.Name(), Cloud: a.cloud, Quotas: cfg.limits(), Drain: cfg.finishTime(),
	})
	a.fleet = fleet.New(master, a.tenants, log, fleet.Options{Paused: cfg.HoldTenantMigrations})

	jobs.Handle(a.queue, fleet.Timeout, a.fleet.Run)
	if !cfg.HoldTenantMigrations {
		jobs.Every(a.queue, fleet.Interval, a.fleet.Job())
	}
	jobs.Handle(a.queue, provisioning.Timeout, a.provisioning.Provision)
	jobs.Handle(a.queue, stores.SyncIdentityTimeout, a.registry.SyncIdentity)
	jobs.Handle(a.queue, stores.DeleteStoreTimeout, a.registry.FinishDeletion)
	jobs.Handle(a.queue, hostnames.RecheckTimeout, a.hostnames.Recheck)
	jobs.Every(a.queue, hostnames.RecheckInterval, hostnames.Recheck{})
	a.accounts.HandleMails(a.queue)
	jobs.Handle(a.queue, accounts.PurgeTimeout, a.accounts.PurgeExpired) // which earlier releases enqueue
	a.handleExpiry()
	a.handlePayments()
	a.followCredits(publicURL)
	jobs.Handle(a.queue, credits.SweepTimeout, a.ledger.Sweep)
	jobs.Every(a.queue, credits.SweepEvery, credits.Sweep{})
	a.releaseEnded()
	return a, nil
}

// releaseEnded registers what releases the work of a process that ended. Jobs are
// released first, so that a provisioning run whose job runs again gets no second
// job.
func (a *app) releaseEnded() {
	a.presence.OnGone(a.queue.Release)
	a.presence.OnGone(a.provisioning.Release)
	a.presence.OnGone(a.cloud.Release)
	a.presence.OnGone(func(ctx context.Context, tx *masterdb.Tx, _ string) error { // accounts that it had marked in memory
		return a.queue.EnqueueOnce(ctx, tx, feed.Sweep{})
	})
}

// followCredits registers the consumers of credit changes: low-balance warnings and
// the copies in the stores' databases.
func (a *app) followCredits(publicURL string) {
	lowBalance := feed.NewLowBalanceNotifier(a.master, a.feed, a.queue, a.mail, publicURL)
	jobs.Handle(a.queue, time.Minute, lowBalance.Announce)
	jobs.Handle(a.queue, time.Minute, lowBalance.Mail)
	a.registry.FollowCredits(a.feed)
	jobs.Handle(a.queue, stores.SyncCreditsTimeout, a.registry.SyncCredits)
	jobs.Handle(a.queue, time.Minute, a.feed.Sweep)
	jobs.Every(a.queue, feed.SweepEvery, feed.Sweep{})
}

func (a *app) handlePayments() {
	jobs.Handle(a.queue, time.Minute, a.payments.Apply)
	jobs.Handle(a.queue, time.Minute, a.payments.Recharge)
	jobs.Handle(a.queue, time.Minute, a.payments.QueueRecharges)
	jobs.Handle(a.queue, payments.ReconcileTimeout, a.payments.RunReconcile)
	if !a.cfg.StripeSecretKey.IsZero() {
		a.payments.FollowCredits(a.feed)
		jobs.Every(a.queue, payments.RechargeDueEvery, payments.RechargeDue{})
		jobs.Every(a.queue, payments.ReconcileEvery, payments.Reconcile{})
	}
}

// newTenants returns the manager of the tenant databases.
func newTenants(cfg *Config, master *masterdb.DB, encryption *keyring.Ring, memory *limits.ByteBudget, log *slog.Logger) (*tenantdb.Manager, error) {
	networks, err := cfg.allowedNetworks()
	if err != nil {
		return nil, err
	}
	rules, err := cfg.supabaseRules()
	if err != nil {
		return nil, err
	}
	managed, err := cfg.managedServer()
	if err != nil {
		return nil, err
	}
	own, err := tenantdb.LoadCustomMigrations(cfg.TenantMigrations)
	if err != nil {
		return nil, err
	}
	files := cfg.fileShares()
	return tenantdb.NewManager(master, encryption, tenantdb.Options{
		DataDir: cfg.DataDir, MaxEmbedded: files.embedded, ConnsPerEmbedded: files.connsPerStore,
		ConnsPerServer: cfg.ConnsPerServer, ConnsPerStore: cfg.ConnsPerStore,
		Dialer:   tenantdb.Dialer{Allow: networks, PublicPlaintext: cfg.development()},
		Supabase: rules,
		Managed:  managed,
		Custom:   own,
		Memory:   memory,

		ServeStale: max(cfg.ServeStale, 1), // 0 would be the default
		Log:        log,
	}), nil
}

// listen starts what runs beside requests and jobs, until stop is called: it
// receives the changes of other replicas, and finds work that they have left. The
// domains have subscribed before.
func (a *app) listen(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // requests that finish during a stop need the changes as well
	var running sync.WaitGroup
	running.Go(func() { a.master.Listen(ctx, a.log) })
	running.Go(func() { a.master.WatchSkew(ctx, a.log) })
	running.Go(func() { a.provisioning.Watch(ctx) })
	running.Go(func() { a.feed.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}
