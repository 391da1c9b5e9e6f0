package cli

import (
	"cmp"
	"context"
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
	return "Checks configuration, data directory, open files, keys, payments, Supabase, master database, clock, schema, job queue and the order of the custom migrations, with a remedy for each fault. " +
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
	out := newFindingWriter(e.Stdout, cmd.JSON)
	for _, f := range findings {
		out.write(f)
	}
	if cmd.Fleet && usable {
		if err := cmd.fleet(ctx, e, out); err != nil {
			out.write(Finding{Check: "fleet", Detail: err.Error(), Remedy: "correct this and run the check again"})
		}
	}
	if err := out.close(); err != nil {
		return err
	}
	if out.unwell {
		return errUnwell
	}
	return nil
}

// findingWriter writes findings as they are made: of a large fleet there may be many.
type findingWriter struct {
	w      io.Writer
	json   *arrayWriter // nil for text
	err    error        // of the first that could not be written
	count  int
	unwell bool // one of them was a fault
}

func newFindingWriter(w io.Writer, asJSON bool) *findingWriter {
	out := &findingWriter{w: w}
	if asJSON {
		out.json = &arrayWriter{w: w}
	}
	return out
}

func (o *findingWriter) write(f Finding) {
	o.count++
	o.unwell = o.unwell || !f.OK
	if o.json != nil {
		o.err = cmp.Or(o.err, o.json.write(f))
		return
	}
	mark := "ok"
	switch {
	case f.Repaired:
		mark = "repair"
	case !f.OK:
		mark = "FAIL"
	case f.Warning:
		mark = "warn"
	}
	Printf(o.w, "%-6s  %-16s %s\n", mark, f.Check, strings.ReplaceAll(f.Detail, "\n", "; "))
	if f.Remedy != "" {
		Printf(o.w, "        %-16s → %s\n", "", f.Remedy)
	}
}

func (o *findingWriter) close() error {
	if o.json == nil {
		return nil
	}
	return cmp.Or(o.err, o.json.close())
}
