package main

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/stoahq/stoa/accounts"
	"github.com/stoahq/stoa/cloud"
	"github.com/stoahq/stoa/credits"
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
	"github.com/stoahq/stoa/supabase"
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
	feed         *credits.Feed
	limits       *limits.Limiter
	memory       *limits.ByteBudget
	outage       outage
	started      time.Time
	draining     chan struct{} // closed when the server is told to stop

	stopListening func() // to other replicas; see listen
}

// newApp opens the master database, migrates it and builds the domains.
// publicURL is the platform's own address.
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
	a.feed = credits.NewFeed(a.ledger, a.queue, log)
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
		Claim: cfg.ProvisioningClaim, Process: a.presence.Name(), Cloud: a.cloud, Quotas: cfg.limits(), Drain: cfg.finishTime(),
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
	a.releaseWork()
	return a, nil
}

// releaseWork has the work of a process that ended go on: its jobs first, so that a
// run whose job runs again gets no second one.
func (a *app) releaseWork() {
	a.presence.OnGone(a.queue.Release)
	a.presence.OnGone(a.provisioning.Release)
	a.presence.OnGone(a.cloud.Release)
	a.presence.OnGone(func(ctx context.Context, tx *masterdb.Tx, _ string) error { // what it had marked in memory
		return a.queue.EnqueueOnce(ctx, tx, credits.SweepFeed{})
	})
}

// followCredits has the work done that follows a change of credits.
func (a *app) followCredits(publicURL string) {
	warner := credits.NewWarner(a.ledger, a.feed, a.queue, a.mail, publicURL)
	jobs.Handle(a.queue, time.Minute, warner.Announce)
	jobs.Handle(a.queue, time.Minute, warner.Mail)
	a.registry.FollowCredits(a.feed)
	jobs.Handle(a.queue, stores.SyncCreditsTimeout, a.registry.SyncCredits)
	jobs.Handle(a.queue, time.Minute, a.feed.Sweep)
	jobs.Every(a.queue, credits.SweepFeedEvery, credits.SweepFeed{})
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

// sales says who takes the money: Stripe with a key, else in development the
// sandbox, else nobody.
func (c *Config) sales(publicURL string, signing *keyring.Ring, log *slog.Logger) payments.Config {
	out := payments.Config{
		StripeKey: c.StripeSecretKey, StripeURL: c.StripeURL, WebhookSecret: c.StripeWebhookSecret,
		CreditPrice: c.price(), BaseURL: publicURL, Log: log,
	}
	if c.sandbox() {
		out.Sandbox, out.WebhookSecret = true, sandboxSecret(signing)
	}
	return out
}

// supabase is the way to Supabase's Management API, nil without an OAuth
// application.
func (c *Config) supabase() *supabase.Client {
	if c.SupabaseClientID == "" {
		return nil
	}
	return supabase.New(supabase.Options{URL: c.SupabaseURL, ClientID: c.SupabaseClientID, ClientSecret: c.SupabaseClientSecret})
}

// checkSupabase says how owners connect their Supabase projects.
func checkSupabase(ctx context.Context, cfg *Config) (string, error) {
	api := cfg.supabase()
	if api == nil {
		return "no OAuth application: projects are connected by connection string only", nil
	}
	return "Supabase accepts the OAuth application", api.Check(ctx)
}

// newTenants is the way to the tenant databases.
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
	own, err := tenantdb.LoadOwnMigrations(cfg.TenantMigrations)
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
		Own:      own,
		Memory:   memory,

		ServeStale: max(cfg.ServeStale, 1), // 0 would be the default
		Log:        log,
	}), nil
}

// sandboxSecret signs the sandbox's payment events. It derives from the
// signing key, so that all replicas share it and it outlives a restart.
func sandboxSecret(signing *keyring.Ring) keyring.Secret {
	_, key := signing.Current()
	secret, err := hkdf.Key(sha256.New, key, nil, "stoa sandbox webhook", sha256.Size)
	if err != nil {
		panic(err) // the length is within HKDF's bounds
	}
	return keyring.NewSecret("whsec_" + hex.EncodeToString(secret))
}

// listen hears what other replicas change and looks for what they leave
// behind, until stop is called. The domains have subscribed when they were built.
func (a *app) listen(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // requests that finish during a stop want to know too
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

// migrateMaster needs a role that may change the schema only when there is
// something to change.
func migrateMaster(ctx context.Context, master *masterdb.DB, log *slog.Logger) error {
	applied, queue, err := migrateAll(ctx, master)
	if masterdb.IsForbidden(err) {
		return fmt.Errorf("the master database has to be migrated, which this role may not: "+
			"as the role that owns it, run 'stoa migrate --grant-to' with the name of this one first (%w)", err)
	}
	if err == nil {
		err = master.CheckGrants(ctx)
	}
	if err != nil {
		return err
	}
	if applied+queue > 0 {
		log.InfoContext(ctx, "master database migrated", "schema", applied, "queue", queue)
	}
	schema, err := master.Schema(ctx)
	if err == nil && schema.Newer() {
		log.InfoContext(ctx, "master database schema is newer than this release, which may run on it",
			"version", schema.Version, "binary", schema.Binary, "oldest_binary", schema.OldestBinary)
	}
	return err
}

// migrateAll returns how many migrations it applied, of the schema and of the
// queue's.
func migrateAll(ctx context.Context, master *masterdb.DB) (schema, queue int, err error) {
	if schema, err = master.Migrate(ctx); err != nil {
		return schema, 0, err
	}
	queue, err = jobs.Migrate(ctx, master)
	return schema, queue, err
}
