package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/masterdb"
)

type doctorCmd struct {
	Fleet bool     `help:"Also look over all stores for what should not be."`
	Mend  bool     `help:"With --fleet: mend what can be mended without losing anything."`
	Drop  []string `help:"With --mend: also drop this stray database, for good. May be repeated." placeholder:"NAME"`
	JSON  bool     `help:"Print JSON."`
}

// Validate is kong's: it is called when the flags are read.
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

// examine runs every check that still makes sense after those before it. With
// a master database that can be worked with it reports true.
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
	detail, err = cfg.checkKeys()
	add("keys", err, detail, "restore the keys this installation was set up with, or make some with 'stoa keys generate'")
	if server, err := cfg.managedServer(); err == nil && server != nil {
		detail, err = checkManaged(ctx, server)
		add("managed server", err, detail, "correct STOA_MANAGED_DATABASE_URL, or that user's rights on the server")
	}
	if !cfg.development() || !cfg.SMTPURL.IsZero() {
		detail, err = cfg.checkMail(ctx)
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
	if detail, err = cfg.checkSealed(ctx, master); detail != "" || err != nil {
		add("encrypted data", err, detail, "give the missing keys back to ENCRYPTION_KEY, behind the first; 'stoa keys list' names them")
	}
	out = append(out, cfg.checkPlatformHosts(ctx, master)...)
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

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist)
}

// checkPrivate wants a file or folder that nobody else can read.
func checkPrivate(path string) (string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return path + " (not made yet; 'stoa serve' makes it)", nil
	}
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s can be read by others (mode %04o)", path, info.Mode().Perm())
	}
	return path, nil
}

// checkMail signs in at the mail server, if there is one, and sends nothing.
func (c *Config) checkMail(ctx context.Context) (string, error) {
	sender, err := c.mail(nil)
	if err != nil {
		return "", err
	}
	if !c.SMTPURL.IsZero() {
		if err := sender.Check(ctx); err != nil {
			return "", err
		}
	}
	return sender.Describe(), nil
}

// checkKeys makes no keys: it only says whether serve would have to.
func (c *Config) checkKeys() (string, error) {
	if c.development() && (c.EncryptionKey.IsZero() || c.JWTSecret.IsZero()) && missing(c.keyFile()) {
		return "not made yet; 'stoa serve' makes them in development", nil
	}
	encryption, signing, err := c.rings()
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

// checkSealed asks whether the keys are here that the data was encrypted with.
func (c *Config) checkSealed(ctx context.Context, master *masterdb.DB) (string, error) {
	if c.development() && c.EncryptionKey.IsZero() && missing(c.keyFile()) {
		return "", nil
	}
	encryption, signing, err := c.rings()
	if err != nil {
		return "", nil // checkKeys has said it
	}
	list, err := listKeys(ctx, master, encryption, signing)
	switch {
	case err != nil:
		return "", err
	case list.lost() > 0:
		return "", fmt.Errorf("%d rows are encrypted with keys that are missing here", list.lost())
	case list.needed() > 0:
		return fmt.Sprintf("%d rows are encrypted with an older key; 'stoa keys rotate' changes that", list.needed()), nil
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

// checkSchema applies the rule by which 'stoa serve' starts: the schemas of the
// master and of its queue are this binary's, or a newer release has made them
// and states that this one may run on them.
func checkSchema(ctx context.Context, master *masterdb.DB) (string, error) {
	schema, err := master.Schema(ctx)
	if err == nil {
		err = schema.Check()
	}
	if err == nil {
		err = jobs.CheckSchema(ctx, master)
	}
	if err != nil {
		return "", err
	}
	detail := fmt.Sprintf("version %d on %s", schema.Version, master.Engine)
	if schema.Newer() {
		detail += fmt.Sprintf(", of a newer release; this one (%d) may run on it", schema.Binary)
	}
	return detail, nil
}

// schemaRemedy says what to do about an error of checkSchema.
func schemaRemedy(err error) string {
	if errors.Is(err, masterdb.ErrSchemaTooNew) {
		return "start the newer release here; to go back to this one, restore the backup from before the upgrade"
	}
	return "run 'stoa migrate'"
}

func checkQueue(ctx context.Context, master *masterdb.DB) (string, error) {
	stats, err := jobs.ReadStats(ctx, master)
	if err != nil {
		return "", err
	}
	if stats.Discarded > 0 {
		return "", fmt.Errorf("%d jobs were given up (%d waiting, %d to be tried again)", stats.Discarded, stats.Waiting, stats.Retrying)
	}
	return fmt.Sprintf("%d waiting, %d to be tried again", stats.Waiting, stats.Retrying), nil
}
