package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb"
)

type tenantsCmd struct {
	Status  tenantsStatusCmd  `cmd:"" help:"How many stores are at each version, which lag, and why migrations failed."`
	Migrate tenantsMigrateCmd `cmd:"" help:"Migrate the stores that lag."`
	Check   tenantsCheckCmd   `cmd:"" help:"Compare stores' schemas with the expected one and name what differs."`
}

type tenantsStatusCmd struct {
	JSON bool `help:"Print JSON."`
}

// Help is shown by 'stoa tenants status --help'.
func (tenantsStatusCmd) Help() string {
	return "Reads the master database and nothing else. Stores count that are open or suspended. It may run beside 'stoa serve'."
}

func (cmd tenantsStatusCmd) Run(e *Env) error {
	return e.withFleet(false, func(_ *masterdb.DB, f *fleet.Service) error {
		status, err := f.Status(e.Ctx)
		if err != nil {
			return err
		}
		if cmd.JSON {
			return json.NewEncoder(e.Stdout).Encode(status)
		}
		return printFleet(e.Stdout, status)
	})
}

type tenantsMigrateCmd struct {
	To          int64         `help:"The last built-in migration to apply; your own then wait. Unless told, all, and then your own." placeholder:"VERSION"`
	Concurrency int           `help:"Stores at a time." default:"8"`
	Canary      fleet.Share   `help:"So many stores, or N% of those that lag, go first; the others follow only if all of them went well." default:"1" placeholder:"N|N%"`
	MaxFailures fleet.Share   `help:"Begin no more stores once more than so many, or N% of all stores, have failed." default:"10%" placeholder:"N|N%"`
	Store       []string      `help:"Only this store: id, slug or hostname. May be given several times." placeholder:"STORE"`
	Timeout     time.Duration `help:"Time for one store." default:"2m"`
	DryRun      bool          `help:"Only say which stores would be migrated; connects to none."`
	JSON        bool          `help:"Print one JSON object per store as it ends, and then the summary."`
}

// Help is shown by 'stoa tenants migrate --help'.
func (tenantsMigrateCmd) Help() string {
	return "Connects to the stores that lag, as 'stoa tenants status' shows them, and to no other, but for a few that it asks whether " +
		"the custom migrations can run in order: with a file that was added below one that has run it does nothing. How each ended is recorded; " +
		"run it again to go on and to try those again that failed. It may run beside 'stoa serve', and twice at once. " +
		"Ctrl-C begins no more stores and lets those under way finish.\n\n" +
		"The exit status is 1 when a store failed or was not reached."
}

func (cmd tenantsMigrateCmd) Run(e *Env) error {
	if cmd.Concurrency < 1 || cmd.Concurrency > 1000 {
		return errors.New("--concurrency must be between 1 and 1000")
	}
	if cmd.Timeout <= 0 {
		return errors.New("--timeout must be more than 0")
	}
	return e.withFleet(true, func(master *masterdb.DB, f *fleet.Service) error {
		only, err := e.storeIDs(master, cmd.Store)
		if err != nil {
			return err
		}
		if !cmd.DryRun && cmd.To == 0 { // with --dry-run or --to none of the operator's custom migrations run
			if err := app.CheckOrder(e.Ctx, f, slog.New(slog.DiscardHandler)); err != nil {
				return err
			}
		}
		p := newProgress(e.Stdout, e.terminal, cmd.JSON)
		sum, err := f.Migrate(e.Ctx, fleet.MigrateOptions{
			To: cmd.To, Concurrency: cmd.Concurrency, Canary: cmd.Canary, MaxFailures: cmd.MaxFailures,
			Stores: only, Timeout: cmd.Timeout, DryRun: cmd.DryRun,
		}, p)
		p.end()
		if !cmd.DryRun {
			if recordErr := e.record(master, audit.TenantsMigrated, migrationDetails(sum)); recordErr != nil {
				return errors.Join(err, recordErr)
			}
		}
		if err != nil {
			return err
		}
		return cmd.conclude(e.Stdout, sum)
	})
}

// migrationDetails returns the details of a run for the audit log. The result of each
// store's migration is recorded with the store.
func migrationDetails(sum fleet.Summary) map[string]string {
	return map[string]string{
		"version": strconv.FormatInt(sum.Target.Version, 10), "migrated": strconv.Itoa(sum.Migrated),
		"failed": strconv.Itoa(sum.Failed), "notReached": strconv.Itoa(sum.Untouched + sum.Interrupted),
	}
}

// conclude prints the summary. It returns an error if a store failed or was not reached,
// except in a dry run.
func (cmd tenantsMigrateCmd) conclude(w io.Writer, sum fleet.Summary) error {
	if cmd.JSON {
		if err := json.NewEncoder(w).Encode(map[string]any{"summary": sum}); err != nil {
			return err
		}
	} else if err := printSummary(w, sum, cmd.DryRun); err != nil {
		return err
	}
	if cmd.DryRun || sum.OK() {
		return nil
	}
	message := fmt.Sprintf("%d stores failed, %d were not reached", sum.Failed, sum.Untouched+sum.Interrupted)
	if sum.Stopped != "" {
		message += ": " + sum.Stopped
	}
	return errors.New(message + "; run this again to go on")
}

func printFleet(w io.Writer, s fleet.Status) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	Printf(table, "expected\t%s (the oldest this binary serves is %d)\n", version(s.Expected), s.Oldest)
	Printf(table, "stores\t%d: %d current, %d lagging, %d ahead; %d failed\n", s.Stores, s.Current, s.Lagging, s.Ahead, s.Failed)
	for _, v := range s.Versions {
		Printf(table, "  version %s\t%d\n", version(v.Schema), v.Stores)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	printCauses(w, s.Causes)
	if s.Lagging > 0 {
		Printf(w, "'stoa tenants migrate' migrates those that lag.\n")
	}
	return nil
}

func version(s tenantdb.Schema) string {
	if s.Own == 0 {
		return fmt.Sprint(s.Version)
	}
	return fmt.Sprintf("%d, own %d", s.Version, s.Own)
}

func printSummary(w io.Writer, sum fleet.Summary, dryRun bool) error {
	switch {
	case sum.Lagging == 0:
		Printf(w, "Nothing to do: no store lags behind version %s.\n", version(sum.Target))
		return nil
	case dryRun:
		Printf(w, "%d stores would be migrated to version %s.\n", sum.Lagging, version(sum.Target))
		return nil
	}
	Printf(w, "%d of %d stores are at version %s; %d failed, %d not reached (%.1f s).\n",
		sum.Migrated, sum.Lagging, version(sum.Target), sum.Failed, sum.Untouched+sum.Interrupted, sum.Seconds)
	printCauses(w, sum.Causes)
	return nil
}

// printCauses prints each cause once, with a few of its stores.
func printCauses(w io.Writer, causes []fleet.Cause) {
	const few = 5
	for _, c := range causes {
		names := strings.Join(c.Stores[:min(few, len(c.Stores))], ", ")
		if more := len(c.Stores) - few; more > 0 {
			names += fmt.Sprintf(" and %d more", more)
		}
		Printf(w, "%s: %s\n  %d: %s\n", c.Code, c.Message, len(c.Stores), names)
	}
}
