// Package doctor checks an installation: configuration, files, keys, services and the
// content of the master database. The command doctor and the console's page of the system
// show the findings, with a remedy for each fault.
package doctor

import (
	"context"
	"errors"
	"fmt"

	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Finding is the outcome of one check.
type Finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
	// Warning is set when the platform works, but something that people expect of it does
	// not. OK is then true, and Remedy says what is missing.
	Warning bool `json:"warning,omitempty"`

	// These fields are set for findings about a store only.
	Store    string `json:"store,omitempty"`
	Name     string `json:"name,omitempty"`
	Repaired bool   `json:"repaired,omitempty"`
}

// findings collects the results of Examine.
type findings []Finding

// add adds the result of one check and reports whether it found nothing. remedy says
// what to do about err.
func (r *findings) add(check string, err error, detail, remedy string) bool {
	f := Finding{Check: check, OK: err == nil, Detail: detail}
	if err != nil {
		f.Detail, f.Remedy = err.Error(), remedy
	}
	*r = append(*r, f)
	return f.OK
}

// warn adds the result of a check of something that the platform works without.
func (r *findings) warn(check, detail, remedy string) {
	*r = append(*r, Finding{Check: check, OK: true, Warning: true, Detail: detail, Remedy: remedy})
}

// Examine runs every check whose preconditions hold. usable reports whether the
// master database can be used. master is the database that the process has open; nil:
// Examine opens it.
func Examine(ctx context.Context, cfg *config.Config, master *masterdb.DB) (out []Finding, usable bool) {
	var r findings
	faults := cfg.Faults()
	r.examineConfiguration(cfg, faults)
	r.examineServices(ctx, cfg)
	usable = r.examineMaster(ctx, cfg, master)
	return r, usable && len(faults) == 0
}

// examineConfiguration checks settings, files and keys.
func (r *findings) examineConfiguration(cfg *config.Config, faults []config.Defect) {
	for _, f := range faults {
		r.add("configuration", f, "", f.Remedy)
	}
	if len(faults) == 0 {
		r.add("configuration", nil, cfg.Env, "")
	}
	if cfg.PlaintextBaseURL() && !cfg.Development() {
		r.warn("public address", cfg.BaseURL+" is not encrypted: passwords can be read on their way", "put TLS in front, and set STOA_BASE_URL to the https address")
	}
	var detail string
	var err error
	if cfg.Development() { // in production it is among the faults
		detail, err = config.CheckPrivate(cfg.DataDir)
		r.add("data directory", err, detail, "chmod 700 "+cfg.DataDir)
		detail, err = config.CheckPrivate(cfg.KeyFile())
		r.add("key file", err, detail, "chmod 600 "+cfg.KeyFile())
	}
	if err = cfg.CheckDirs(); err != nil {
		var u *config.Unwritable
		errors.As(err, &u)
		r.add("data directory", errors.New(u.Path+" cannot be written to: "+u.Cause), "", u.Remedy)
	}
	detail, err = cfg.FileShares().Check()
	r.add("open files", err, detail, fmt.Sprintf("raise the limit to %d for 'stoa serve' (ulimit -n, LimitNOFILE=), or lower STOA_EMBEDDED_OPEN", cfg.FileShares().Wanted))
	detail, err = checkKeys(cfg)
	r.add("keys", err, detail, "restore the keys this installation was set up with, or make some with 'stoa keys generate'")
}

// examineServices checks the services that are configured: databases' server, mail,
// Redis, Stripe and Supabase.
func (r *findings) examineServices(ctx context.Context, cfg *config.Config) {
	var detail string
	var err error
	if server, err := cfg.ManagedServer(); err == nil && server != nil {
		detail, err = checkManaged(ctx, server)
		r.add("managed server", err, detail, "correct STOA_MANAGED_DATABASE_URL, or that user's rights on the server")
	}
	r.examineMail(ctx, cfg)
	if !cfg.RedisURL.IsZero() {
		r.add("rate limits", cfg.CheckRedis(ctx), "shared through REDIS_URL", "see that the server runs and admits this machine; until then each process counts by itself")
	}
	detail, err = checkPayments(ctx, cfg)
	r.add("payments", err, detail, "correct STRIPE_SECRET_KEY and that this machine may reach api.stripe.com")
	detail, err = CheckSupabase(ctx, cfg)
	r.add("supabase", err, detail, "correct SUPABASE_OAUTH_CLIENT_ID and its secret, and see that this machine may reach api.supabase.com")
	detail, err = checkArchives(ctx, cfg)
	if err == nil && cfg.BackupStorage == "" && !cfg.Development() {
		r.warn("archives", detail, "set STOA_BACKUP_STORAGE to another place")
	} else {
		r.add("archives", err, detail, "correct STOA_BACKUP_STORAGE and its keys, and see that this machine may reach it")
	}
}

// examineMail checks the mail server. Everything but mail works without one.
func (r *findings) examineMail(ctx context.Context, cfg *config.Config) {
	switch detail, err := checkMail(ctx, cfg); {
	case cfg.SMTPURL.IsZero() && cfg.Development():
	case cfg.SMTPURL.IsZero():
		r.warn("mail", detail+": nobody can verify an address, reset a password or be invited", "set SMTP_URL")
	case err != nil:
		r.warn("mail", "mail cannot be sent: "+err.Error(), "correct SMTP_URL, or see that its server runs and admits this machine")
	default:
		r.add("mail", nil, detail, "")
	}
}

// examineMaster checks the master database and its content, and reports whether it can
// be used.
func (r *findings) examineMaster(ctx context.Context, cfg *config.Config, master *masterdb.DB) bool {
	if master != nil {
		return r.add("master database", master.Ping(ctx), "answers", "check that the server runs and admits this machine") && r.examineOpen(ctx, cfg, master)
	}
	if cfg.MasterDBURL.IsZero() && config.Missing(cfg.MasterURL()[len("sqlite:"):]) {
		r.add("master database", nil, "not made yet; 'stoa serve' makes it", "")
		return false
	}
	urls := "MASTER_DB_URL"
	if cfg.MasterSessionURL() != "" {
		urls += ", MASTER_DB_SESSION_URL"
	}
	master, err := cfg.OpenMasterDB(ctx)
	if !r.add("master database", err, "answers", "do as it says, or check "+urls+" and that the server runs and admits this machine") {
		return false
	}
	defer master.Close()
	return r.examineOpen(ctx, cfg, master)
}

// examineOpen checks a master database that answers, and reports whether it can be used.
func (r *findings) examineOpen(ctx context.Context, cfg *config.Config, master *masterdb.DB) bool {
	if master.Engine == masterdb.Postgres {
		detail, err := CheckClock(ctx, master)
		r.add("clock", err, detail, "synchronise this machine's clock and the database server's by NTP; until then the platform goes by the server's")
	}
	r.add("writing", master.CheckWrite(ctx), "the master database stores what it is given", "free room on its disk, or give it more; see that it is the primary and its folder can be written to")
	detail, err := CheckSchema(ctx, master)
	if !r.add("schema", err, detail, SchemaRemedy(err)) {
		return false
	}
	r.examineContent(ctx, cfg, master)
	return true
}

// examineContent checks what the master database contains, its notifications and its
// queue.
func (r *findings) examineContent(ctx context.Context, cfg *config.Config, master *masterdb.DB) {
	var detail string
	var err error
	if detail, err = checkSealed(ctx, cfg, master); detail != "" || err != nil {
		r.add("encrypted data", err, detail, "give the missing keys back to ENCRYPTION_KEY, behind the first; 'stoa keys list' names them")
	}
	*r = append(*r, checkPlatformHosts(ctx, cfg, master)...)
	detail, err = checkUsers(ctx, master)
	r.add("users", err, detail, "have them prove or change the address; 'stoa users verify' and 'stoa users demote' are yours. Such an address signs in as it is, and is nobody else's")
	detail, err = checkPurchases(ctx, master)
	r.add("purchases", err, detail, "'stoa payments list --state mismatched' names them: refund each payment at Stripe, all of it; then its purchase is refunded")
	if master.Engine == masterdb.Postgres {
		r.add("notifications", master.CheckListen(ctx), "a notification to itself arrives",
			"give MASTER_DB_URL the address of the database server itself or of a pooler in session mode, or set MASTER_DB_SESSION_URL; until then replicas see each other's changes a second late")
	}
	detail, err = CheckQueue(ctx, master)
	r.add("job queue", err, detail, "run 'stoa migrate', then look for the job's error in the server's log")
}
