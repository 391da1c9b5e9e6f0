package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/stoahq/stoa/internal/doctor"
)

type doctorCmd struct {
	Fleet  bool     `help:"Also look over all stores for what should not be."`
	Repair bool     `help:"With --fleet: repair what can be repaired without losing anything."`
	Drop   []string `help:"With --repair: also drop this stray database, for good. May be repeated." placeholder:"NAME"`
	JSON   bool     `help:"Print JSON."`
}

// Validate is called by kong after it has read the flags.
func (cmd doctorCmd) Validate() error {
	if cmd.Repair && !cmd.Fleet || len(cmd.Drop) > 0 && !cmd.Repair {
		return errors.New("--repair belongs to --fleet, and --drop to --repair")
	}
	return nil
}

// Help is shown by 'stoa doctor --help'.
func (doctorCmd) Help() string {
	return "Checks configuration, data directory, open files, keys, payments, Supabase, master database, clock, schema, job queue and the order of your own migrations, with a remedy for each fault. " +
		"It changes nothing, but for a file that it writes into the data directory, and a database and a role named stoa_selftest_… that it makes on the server for managed databases, " +
		"to see whether that works, and removes at once. The exit status is 1 when something is wrong.\n\n" +
		"With --fleet it also looks over the stores: provisioning runs without a job, stores that are stuck or should be gone, and managed databases, " +
		"files and hostnames that no store has, and stores on Supabase whose tables the project's HTTP API can reach. --repair repairs what it finds, but a stray database it drops only when --drop names it: run without first, " +
		"and with the same configuration as 'stoa serve'. The exit status is 1 when something was found, repaired or not."
}

// Finding is the outcome of one check.
type Finding = doctor.Finding

var errUnwell = errors.New("something needs attention; the remedies are above")

func (cmd doctorCmd) Run(e *Env) error {
	limit := time.Minute
	if cmd.Fleet {
		limit = 30 * time.Minute // dropping a database may take minutes
	}
	ctx, cancel := context.WithTimeout(e.Ctx, limit)
	defer cancel()
	findings, usable := doctor.Examine(ctx, e.Cfg, nil)
	if usable {
		findings = append(findings, cmd.order(e)...)
	}
	if cmd.Fleet && usable {
		fleet, err := cmd.fleet(ctx, e)
		if err != nil {
			fleet = append(fleet, Finding{Check: "fleet", Detail: err.Error(), Remedy: "correct this and run the check again"})
		}
		findings = append(findings, fleet...)
	}
	if err := report(e.Stdout, findings, cmd.JSON); err != nil {
		return err
	}
	for _, f := range findings {
		if !f.OK {
			return errUnwell
		}
	}
	return nil
}

func report(w io.Writer, findings []Finding, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(findings)
	}
	for _, f := range findings {
		mark := "ok"
		switch {
		case f.Repaired:
			mark = "repair"
		case !f.OK:
			mark = "FAIL"
		case f.Warning:
			mark = "warn"
		}
		Printf(w, "%-6s  %-16s %s\n", mark, f.Check, strings.ReplaceAll(f.Detail, "\n", "; "))
		if f.Remedy != "" {
			Printf(w, "        %-16s → %s\n", "", f.Remedy)
		}
	}
	return nil
}
