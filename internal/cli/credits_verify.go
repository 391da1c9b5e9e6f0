package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits/verify"
)

type creditsVerifyCmd struct {
	JSON bool `help:"Print JSON."`
}

// Help is shown by 'stoa credits verify --help'.
func (creditsVerifyCmd) Help() string {
	return "Reads the whole ledger as it is at one moment and changes nothing: do the rows of each account add up to its balance, debt and " +
		"lifetime sums, is each balance the one before plus the amount, are they numbered without gaps, is what is reserved what open holds and " +
		"freezes hold, do lots have what was not taken from them, and has no payment been taken back twice. Of each account it names the first " +
		"row that is wrong. It may run beside 'stoa serve'.\n\n" +
		"Nothing that Stoa does makes a fault: look for whoever wrote into the database by hand, and restore the row from a backup.\n\n" +
		"The exit status is 1 when anything is wrong."
}

// Verification is the printed result.
type Verification struct {
	OK           bool          `json:"ok"`
	Complete     bool          `json:"complete"`
	Accounts     int64         `json:"accounts"`
	Transactions int64         `json:"transactions"`
	Faults       []ledgerFault `json:"faults"`
}

type ledgerFault struct {
	Store   stoa.StoreID `json:"store"`
	Row     string       `json:"row"`
	Message string       `json:"message"`
}

func (cmd creditsVerifyCmd) Run(e *Env) error {
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	p := &verifyProgress{Bar: newBar(e.terminal, cmd.JSON, "accounts", "faulty"), out: e.Stderr, silent: cmd.JSON}
	report, err := verify.Run(e.Ctx, master, p.show)
	p.end()
	if err != nil {
		return fmt.Errorf("the ledger could not be read to its end: %w", err)
	}
	if err := cmd.print(e.Stdout, report); err != nil {
		return err
	}
	if len(report.Inconsistencies) > 0 {
		return errors.New("the ledger is not as it must be")
	}
	return nil
}

func (cmd creditsVerifyCmd) print(w io.Writer, r verify.Report) error {
	v := Verification{OK: len(r.Inconsistencies) == 0, Complete: r.Accounts >= r.Of, Accounts: r.Accounts, Transactions: r.Transactions, Faults: []ledgerFault{}}
	for _, f := range r.Inconsistencies {
		v.Faults = append(v.Faults, ledgerFault{Store: f.StoreID, Row: f.Row, Message: f.Message})
	}
	if cmd.JSON {
		return json.NewEncoder(w).Encode(v)
	}
	for _, f := range r.Inconsistencies {
		Printf(w, "%s\n", f)
	}
	Printf(w, "%d transactions of %d accounts: %s%s.\n", v.Transactions, v.Accounts,
		map[bool]string{true: "everything adds up", false: fmt.Sprintf("%d of them are wrong", len(r.Inconsistencies))}[v.OK],
		note(!v.Complete, fmt.Sprintf("; of %d accounts the others were not looked at", r.Of)))
	return nil
}

// verifyProgress shows a progress bar on a terminal, and otherwise prints a line for every
// tenth of the accounts.
type verifyProgress struct {
	Bar
	out    io.Writer
	silent bool
}

func (p *verifyProgress) show(r verify.Report) {
	const parts = 10
	before := p.Done
	p.Total, p.Done, p.Failed = r.Of, r.Accounts, int64(len(r.Inconsistencies))
	switch {
	case p.silent:
	case p.terminal != nil:
		p.draw()
	case p.Done*parts/p.Total > before*parts/p.Total:
		Printf(p.out, "%d/%d accounts, %d transactions, %d faulty\n", p.Done, p.Total, r.Transactions, p.Failed)
	}
}
