package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/imports"
	"github.com/stoahq/stoa/internal/tenantdb"
)

type storesImportCmd struct {
	File           string         `arg:"" help:"The file; - is stdin." placeholder:"FILE"`
	Format         imports.Format `help:"csv or jsonl. Unless told, the file's name says it." enum:",csv,jsonl" default:"" placeholder:"FORMAT"`
	DryRun         bool           `help:"Check the file, look into the owners' own databases, and change nothing."`
	VerifiedEmails bool           `help:"You vouch that the addresses are the owners': they count as verified."`
	Parallel       int            `help:"Stores at a time, at most 16." default:"4" placeholder:"N"`
	StopOnError    bool           `help:"Begin no more stores after the first one that fails."`
	JSON           bool           `help:"Print one JSON object per store as it ends, and then the summary."`
}

// Help is shown by 'stoa stores import --help'.
func (storesImportCmd) Help() string {
	return "Each line is a store with its owner. The first line of CSV names the columns:\n\n" +
		"  owner_email,owner_name,owner_password_hash,store_slug,store_name,store_currency,database\n" +
		"  ada@example.com,Ada Lovelace,$2y$10$…,engines,Analytical Engines,GBP,managed\n" +
		"  ada@example.com,,,looms,Ada's Looms,GBP,\"postgres://looms:…@db.example.com/looms\"\n\n" +
		"JSON Lines have the same names: {\"owner_email\": \"ada@example.com\", \"store_slug\": \"engines\", \"store_name\": \"Analytical Engines\"}\n\n" +
		"Required are owner_email, store_slug and store_name. owner_password_hash is bcrypt, argon2, scrypt or PBKDF2 as Laravel, Rails, Django, Supabase and " +
		"others write it, and Firebase's as docs/import.md shows; owners sign in with the password that they have. Without a hash they set one by 'forgot password'. " +
		"database is 'managed', which is what an empty one means, or a connection string of any form; engine is then its type, if the string does not say it, and " +
		"adopt is true for a database that keeps its own tables. Other columns are of the store's profile: store_description, store_contact_email, store_country, …\n\n" +
		"The whole file is checked first: with any fault, nothing is changed. A store that fails afterwards, say because its database does not answer, does not stop the others. " +
		"Run it again to go on, also after it was killed: what is there already is kept, accounts by address and stores by slug. " +
		"No mail is sent, and quotas do not stop it. It may run beside 'stoa serve'. Ctrl-C begins no more stores and lets those under way finish.\n\n" +
		"First:\n  stoa stores import shops.csv --dry-run\n\n" +
		"The exit status is 1 when the file has a fault, and when a store failed or was not reached."
}

// Validate is called by kong after it has read the flags.
func (cmd storesImportCmd) Validate() error {
	if cmd.Parallel < 1 || cmd.Parallel > imports.MaxParallel {
		return fmt.Errorf("--parallel must be between 1 and %d", imports.MaxParallel)
	}
	return nil
}

func (cmd storesImportCmd) Run(e *Env) error {
	file, err := imports.Open(cmd.File, e.Stdin, cmd.Format)
	if errors.Is(err, imports.ErrFormat) {
		return fmt.Errorf("%w: use a name that ends in .csv or .jsonl, or --format", err)
	}
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it was only read
	a, err := e.openApp(e.Ctx)
	if err != nil {
		return err
	}
	if !cmd.DryRun {
		if err := a.StartProvisioning(e.Ctx); err != nil {
			return errors.Join(err, a.Close(e.Ctx))
		}
	}
	p := &importProgress{Bar: newBar(e.terminal, cmd.JSON, "stores", "failed"), cmd: cmd, out: e.Stdout, stderr: e.Stderr}
	sum, err := a.Imports.Run(e.Ctx, e.by, file, imports.Options{
		Parallel: cmd.Parallel, Verified: cmd.VerifiedEmails, StopOnError: cmd.StopOnError, DryRun: cmd.DryRun,
	}, p)
	p.end()
	if err := errors.Join(err, stopImport(e, a)); err != nil {
		return plain(err)
	}
	return p.conclude(sum)
}

func stopImport(e *Env, a *app.App) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.Ctx), e.Cfg.StopTimeout)
	defer cancel()
	return errors.Join(a.Provisioning.Stop(ctx), a.Close(ctx))
}

// importResult is the result of one line in the output.
type importResult struct {
	Line         int            `json:"line"`
	Email        string         `json:"email"`
	Slug         string         `json:"slug"`
	Store        *stoa.StoreID  `json:"store"`
	OwnerCreated bool           `json:"ownerCreated"`
	State        imports.State  `json:"state"`
	Code         stoa.Code      `json:"code,omitempty"`
	Message      string         `json:"message,omitempty"`
	Warnings     []stoa.Code    `json:"warnings,omitempty"`
	Adoption     *importAdopted `json:"adoption,omitempty"`
	DurationMS   int64          `json:"durationMs"`
}

// importAdopted is what a dry run found in a database that holds tables of others.
type importAdopted struct {
	Makes   []string `json:"makes"`
	Clashes []string `json:"clashes,omitempty"`
	Keeps   int      `json:"keeps"`
}

func newImportResult(r imports.Result) importResult {
	out := importResult{
		Line: r.Line, Email: r.Email, Slug: r.Slug, OwnerCreated: r.OwnerMade, State: r.State, Code: r.Code, Message: r.Message, DurationMS: r.Duration.Milliseconds(),
	}
	if !r.Store.IsZero() {
		out.Store = &r.Store
	}
	for _, w := range r.Warnings {
		out.Warnings = append(out.Warnings, w.Code)
	}
	if a := r.Adoption; a != nil {
		out.Adoption = &importAdopted{a.Makes, a.Clashes, a.Keeps}
	}
	return out
}

// importSummary is the end of the output as JSON.
type importSummary struct {
	DryRun     bool  `json:"dryRun"`
	Lines      int   `json:"lines"`
	Faults     int   `json:"faults"`
	Owners     int   `json:"ownersCreated"`
	Made       int   `json:"made"`
	Completed  int   `json:"completed"`
	Kept       int   `json:"kept"`
	Failed     int   `json:"failed"`
	NotReached int   `json:"notReached"`
	DurationMS int64 `json:"durationMs"`
}

type importFault struct {
	Line    int    `json:"line"`
	Column  string `json:"column,omitempty"`
	Message string `json:"message"`
}

// importProgress shows the progress of an import: on a terminal a line that is redrawn, and
// otherwise a line on stderr from time to time. The results go to stdout.
type importProgress struct {
	Bar
	cmd    storesImportCmd
	out    io.Writer
	stderr io.Writer
	told   time.Time
	failed []imports.Result // to be shown below the bar
}

// tellEvery is the time between two lines of progress without a terminal.
const tellEvery = 5 * time.Second

// Begin implements imports.Observer.
func (p *importProgress) Begin(lines int) {
	p.Total, p.started, p.told = int64(lines), time.Now(), time.Now()
}

// Add implements imports.Observer.
func (p *importProgress) Add(r imports.Result) {
	p.Done++
	if r.State == imports.Failed {
		p.Failed++
	}
	switch {
	case p.cmd.JSON:
		_ = json.NewEncoder(p.out).Encode(newImportResult(r)) // the reader may have closed the pipe; the import continues
	case p.terminal == nil:
		p.print(r)
	case r.State == imports.Failed && len(p.failed) < imports.MaxFaults:
		p.failed = append(p.failed, r)
	}
	if p.terminal != nil {
		p.draw()
	} else if time.Since(p.told) > tellEvery {
		p.told = time.Now()
		Printf(p.stderr, "%s\n", p.text(time.Since(p.started)))
	}
}

func (p *importProgress) print(r imports.Result) {
	text := importText(r)
	Printf(p.out, "line %d: %s, %s: %s\n", r.Line, r.Email, r.Slug, text)
}

// importText says what became of a line.
func importText(r imports.Result) string {
	owner := ""
	if r.OwnerMade {
		owner = ", with its owner"
	}
	text := ""
	switch r.State {
	case imports.Made:
		text = "made" + owner
	case imports.Completed:
		text = "completed" + owner
	case imports.Kept:
		text = "was there already"
	case imports.ToMake:
		text = "would be made" + owner
	case imports.ToComplete:
		text = "would be completed" + owner
	case imports.Failed:
		return fmt.Sprintf("failed: %s (%s)", r.Message, r.Code)
	}
	if a := r.Adoption; a != nil {
		text += fmt.Sprintf("; %d tables beside %d that stay", len(a.Makes), a.Keeps)
	}
	return text + warningsText(r.Warnings)
}

func warningsText(warnings []tenantdb.Warning) string {
	var b strings.Builder
	for _, w := range warnings {
		fmt.Fprintf(&b, "; %s: %s", w.Code, w.Message)
	}
	return b.String()
}

// conclude prints the faults or the summary, and returns an error unless all went well.
func (p *importProgress) conclude(sum imports.Summary) error {
	for _, f := range sum.Faults {
		if p.cmd.JSON {
			_ = json.NewEncoder(p.out).Encode(importFault(f)) // SafeWriter keeps a write error
			continue
		}
		column := f.Column
		if column != "" {
			column += " "
		}
		Printf(p.out, "line %d: %s%s\n", f.Line, column, f.Message)
	}
	for _, r := range p.failed {
		p.print(r)
	}
	if p.cmd.JSON {
		err := json.NewEncoder(p.out).Encode(map[string]importSummary{"summary": {
			DryRun: p.cmd.DryRun, Lines: sum.Lines, Faults: sum.FaultCount, Owners: sum.Owners, Made: sum.Made, Completed: sum.Completed, Kept: sum.Kept,
			Failed: sum.Failed, NotReached: sum.NotReached, DurationMS: sum.Duration.Milliseconds(),
		}})
		if err != nil {
			return err
		}
	} else if sum.FaultCount == 0 {
		p.printSummary(sum)
	}
	return importError(sum)
}

func (p *importProgress) printSummary(sum imports.Summary) {
	format := "%d stores made, %d completed, %d were there already, %d failed, %d not reached; %d owners made; %s.\n"
	if p.cmd.DryRun {
		format = "%d stores would be made, %d completed, %d are there already, %d would fail, %d not reached; %d owners would be made; %s. Nothing was changed.\n"
	}
	Printf(p.out, format, sum.Made, sum.Completed, sum.Kept, sum.Failed, sum.NotReached, sum.Owners, sum.Duration.Round(time.Millisecond))
}

func importError(sum imports.Summary) error {
	switch {
	case sum.FaultCount > len(sum.Faults):
		return fmt.Errorf("the file has %d faults, of which the first %d are shown. Nothing was changed", sum.FaultCount, len(sum.Faults))
	case sum.FaultCount == 1:
		return errors.New("the file has a fault. Nothing was changed")
	case sum.FaultCount > 0:
		return fmt.Errorf("the file has %d faults. Nothing was changed", sum.FaultCount)
	case sum.Lines == 0:
		return errors.New("the file has no stores")
	case sum.Failed > 0 || sum.NotReached > 0:
		return fmt.Errorf("%d stores failed and %d were not reached. Correct what the lines say and run the same command again: it goes on where it ended", sum.Failed, sum.NotReached)
	}
	return nil
}
