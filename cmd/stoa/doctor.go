package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/stoahq/stoa/masterdb"
)

type doctorCmd struct {
	Fleet bool     `help:"Also look over all stores for what should not be."`
	Mend  bool     `help:"With --fleet: mend what can be mended without losing anything."`
	Drop  []string `help:"With --mend: also drop this stray database, for good. May be repeated." placeholder:"NAME"`
	JSON  bool     `help:"Print JSON."`
}

// Validate is called by kong after it has read the flags.
func (cmd doctorCmd) Validate() error {
	if cmd.Mend && !cmd.Fleet || len(cmd.Drop) > 0 && !cmd.Mend {
		return errors.New("--mend belongs to --fleet, and --drop to --mend")
	}
	return nil
}

// Help is shown by 'stoa doctor --help'.
func (doctorCmd) Help() string {
	return "Checks configuration, data directory, open files, keys, payments, Supabase, master database, clock, schema, job queue and the order of your own migrations, with a remedy for each fault. " +
		"It changes nothing, but for a file that it writes into the data directory, and a database and a role named stoa_selftest_… that it makes on the server for managed databases, " +
		"to see whether that works, and removes at once. The exit status is 1 when something is wrong.\n\n" +
		"With --fleet it also looks over the stores: provisioning runs without a job, stores that are stuck or should be gone, and managed databases, " +
		"files and hostnames that no store has, and stores on Supabase whose tables the project's HTTP API can reach. --mend mends what it finds, but a stray database it drops only when --drop names it: run without first, " +
		"and with the same configuration as 'stoa serve'. The exit status is 1 when something was found, mended or not."
}

// finding is the outcome of one check.
type finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`

	// Of the fleet only.
	Store  string `json:"store,omitempty"`
	Name   string `json:"name,omitempty"`
	Mended bool   `json:"mended,omitempty"`
}

var errUnwell = errors.New("something needs attention; the remedies are above")

func (cmd doctorCmd) Run(e *env) error {
	limit := time.Minute
	if cmd.Fleet {
		limit = 30 * time.Minute // a drop takes its time
	}
	ctx, cancel := context.WithTimeout(e.ctx, limit)
	defer cancel()
	findings, usable := examine(ctx, e.cfg)
	if usable {
		findings = append(findings, cmd.order(e)...)
	}
	if cmd.Fleet && usable {
		fleet, err := cmd.fleet(ctx, e)
		if err != nil {
			fleet = append(fleet, finding{Check: "fleet", Detail: err.Error(), Remedy: "correct this and run the check again"})
		}
		findings = append(findings, fleet...)
	}
	if err := report(e.stdout, findings, cmd.JSON); err != nil {
		return err
	}
	for _, f := range findings {
		if !f.OK {
			return errUnwell
		}
	}
	return nil
}

func report(w io.Writer, findings []finding, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(findings)
	}
	for _, f := range findings {
		mark := "ok  "
		switch {
		case f.Mended:
			mark = "mend"
		case !f.OK:
			mark = "FAIL"
		}
		printf(w, "%s  %-16s %s\n", mark, f.Check, strings.ReplaceAll(f.Detail, "\n", "; "))
		if f.Remedy != "" {
			printf(w, "      %-16s → %s\n", "", f.Remedy)
		}
	}
	return nil
}

// examine runs every check whose preconditions hold. usable reports whether the
// master database can be used.
func examine(ctx context.Context, cfg *Config) (out []finding, usable bool) {
	add := func(check string, err error, detail, remedy string) bool {
		f := finding{Check: check, OK: err == nil, Detail: detail}
		if err != nil {
			f.Detail, f.Remedy = err.Error(), remedy
		}
		out = append(out, f)
		return f.OK
	}
	faults := cfg.faults()
	for _, f := range faults {
		add("configuration", f, "", f.remedy)
	}
	if len(faults) == 0 {
		add("configuration", nil, cfg.Env, "")
	}
	var detail string
	var err error
	if cfg.development() { // else it is among the faults
		detail, err = checkPrivate(cfg.DataDir)
		add("data directory", err, detail, "chmod 700 "+cfg.DataDir)
		detail, err = checkPrivate(cfg.keyFile())
		add("key file", err, detail, "chmod 600 "+cfg.keyFile())
	}
	if err = cfg.checkDirs(); err != nil {
		var u *unwritable
		errors.As(err, &u)
		add("data directory", errors.New(u.path+" cannot be written to: "+u.cause), "", u.remedy)
	}
	detail, err = cfg.fileShares().check()
	add("open files", err, detail, fmt.Sprintf("raise the limit to %d for 'stoa serve' (ulimit -n, LimitNOFILE=), or lower STOA_EMBEDDED_OPEN", cfg.fileShares().wanted))
	detail, err = checkKeys(cfg)
	add("keys", err, detail, "restore the keys this installation was set up with, or make some with 'stoa keys generate'")
	if server, err := cfg.managedServer(); err == nil && server != nil {
		detail, err = checkManaged(ctx, server)
		add("managed server", err, detail, "correct STOA_MANAGED_DATABASE_URL, or that user's rights on the server")
	}
	if !cfg.development() || !cfg.SMTPURL.IsZero() {
		detail, err = checkMail(ctx, cfg)
		add("mail", err, detail, "correct SMTP_URL, or see that its server runs and admits this machine")
	}
	if !cfg.RedisURL.IsZero() {
		add("rate limits", cfg.checkRedis(ctx), "shared through REDIS_URL", "see that the server runs and admits this machine; until then each process counts by itself")
	}
	detail, err = checkPayments(ctx, cfg)
	add("payments", err, detail, "correct STRIPE_SECRET_KEY and that this machine may reach api.stripe.com")
	detail, err = checkSupabase(ctx, cfg)
	add("supabase", err, detail, "correct SUPABASE_OAUTH_CLIENT_ID and its secret, and see that this machine may reach api.supabase.com")
	if cfg.MasterDBURL.IsZero() && missing(cfg.masterURL()[len("sqlite:"):]) {
		add("master database", nil, "not made yet; 'stoa serve' makes it", "")
		return out, false
	}
	master, err := cfg.openMasterDB(ctx)
	if !add("master database", err, "answers", "check MASTER_DB_URL and that the server runs and admits this machine") {
		return out, false
	}
	defer master.Close()
	if master.Engine == masterdb.Postgres {
		detail, err = checkClock(ctx, master)
		add("clock", err, detail, "synchronise this machine's clock and the database server's by NTP; until then the platform goes by the server's")
	}
	add("writing", master.CheckWrite(ctx), "the master database stores what it is given", "free room on its disk, or give it more; see that it is the primary and its folder can be written to")
	detail, err = checkSchema(ctx, master)
	if !add("schema", err, detail, schemaRemedy(err)) {
		return out, false
	}
	if detail, err = checkSealed(ctx, cfg, master); detail != "" || err != nil {
		add("encrypted data", err, detail, "give the missing keys back to ENCRYPTION_KEY, behind the first; 'stoa keys list' names them")
	}
	out = append(out, checkPlatformHosts(ctx, cfg, master)...)
	detail, err = checkUsers(ctx, master)
	add("users", err, detail, "have them prove or change the address; 'stoa users verify' and 'stoa users demote' are yours. Such an address signs in as it is, and is nobody else's")
	detail, err = checkPurchases(ctx, master)
	add("purchases", err, detail, "'stoa payments list --state mismatched' names them: refund each payment at Stripe, all of it; then its purchase is refunded")
	if master.Engine == masterdb.Postgres {
		add("notifications", master.CheckListen(ctx), "a notification to itself arrives",
			"give MASTER_DB_URL the address of the database server itself, or of a pooler in session mode; until then replicas see each other's changes a second late")
	}
	detail, err = checkQueue(ctx, master)
	add("job queue", err, detail, "run 'stoa migrate', then look for the job's error in the server's log")
	return out, len(faults) == 0
}
