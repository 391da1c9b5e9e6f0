package cli

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/masterdb"
)

type tenantsCheckCmd struct {
	Store       []string `help:"Only this store: id, slug or hostname. May be given several times." placeholder:"STORE"`
	Concurrency int      `help:"Stores at a time." default:"8"`
	JSON        bool     `help:"Print one JSON object per store, and then the summary."`
}

// Help is shown by 'stoa tenants check --help'.
func (tenantsCheckCmd) Help() string {
	return "Looks into every store's database, changes nothing, and names each table, column, index and constraint that is missing, " +
		"made otherwise or, unless you have migrations of your own, not Stoa's. Stores that lag are passed over: 'stoa tenants migrate' " +
		"comes first.\n\nThe exit status is 1 when a store differs or could not be looked at."
}

// checkEvent is the result for one store in the output.
type checkEvent struct {
	Store   stoa.StoreID `json:"store"`
	Slug    string       `json:"slug"`
	OK      bool         `json:"ok"`
	Lagging bool         `json:"lagging"`
	Drift   []string     `json:"drift"`
	Code    stoa.Code    `json:"code,omitempty"`
	Message string       `json:"message,omitempty"`
}

// checkSummary counts the results.
type checkSummary struct {
	OK      int `json:"ok"`
	Lagging int `json:"lagging"`
	Drifted int `json:"drifted"`
	Failed  int `json:"failed"`
}

func (s *checkSummary) add(c fleet.Checked) {
	switch {
	case c.Lagging:
		s.Lagging++
	case c.Code != "":
		s.Failed++
	case len(c.Drift) > 0:
		s.Drifted++
	default:
		s.OK++
	}
}

func (cmd tenantsCheckCmd) Run(e *Env) error {
	if cmd.Concurrency < 1 || cmd.Concurrency > 1000 {
		return errors.New("--concurrency must be between 1 and 1000")
	}
	return e.withFleet(true, func(master *masterdb.DB, f *fleet.Service) error {
		only, err := e.storeIDs(master, cmd.Store)
		if err != nil {
			return err
		}
		var sum checkSummary
		err = f.Check(e.Ctx, only, cmd.Concurrency, func(c fleet.Checked) {
			sum.add(c)
			cmd.print(e, c)
		})
		if err != nil {
			return err
		}
		if cmd.JSON {
			err = json.NewEncoder(e.Stdout).Encode(map[string]any{"summary": sum})
		} else {
			Printf(e.Stdout, "%d stores are as they should be, %d differ, %d could not be looked at, %d lag.\n",
				sum.OK, sum.Drifted, sum.Failed, sum.Lagging)
		}
		if err == nil && sum.Drifted+sum.Failed > 0 {
			err = fmt.Errorf("%d stores differ, %d could not be looked at", sum.Drifted, sum.Failed)
		}
		return err
	})
}

// print prints the result for a store. Without --json it prints nothing for a store without
// faults.
func (cmd tenantsCheckCmd) print(e *Env, c fleet.Checked) {
	if cmd.JSON {
		event := checkEvent{Store: c.Store.ID, Slug: c.Store.Slug, OK: c.OK() && !c.Lagging, Lagging: c.Lagging, Drift: []string{}, Code: c.Code, Message: c.Message}
		event.Drift = append(event.Drift, c.Drift...)
		_ = json.NewEncoder(e.Stdout).Encode(event) // the reader may have closed the pipe
		return
	}
	if c.Code != "" {
		Printf(e.Stdout, "%s: could not be looked at (%s: %s)\n", c.Store.Slug, c.Code, c.Message)
	}
	for _, d := range c.Drift {
		Printf(e.Stdout, "%s: %s\n", c.Store.Slug, d)
	}
}
