package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/page"
)

type pricesCmd struct {
	List pricesListCmd `cmd:"" help:"List what services cost."`
	Set  pricesSetCmd  `cmd:"" help:"Set what a unit of a service costs, now or from a day on."`
}

type pricesListCmd struct {
	At      time.Time `help:"The prices of that moment, such as 2027-01-01T00:00:00Z." placeholder:"TIME"`
	History bool      `help:"Every price there was, is or is planned."`
	JSON    bool      `help:"Print JSON."`
}

// Validate is called by kong after it has read the flags.
func (cmd pricesListCmd) Validate() error {
	if cmd.History && !cmd.At.IsZero() {
		return errors.New("--history shows all times, --at one: give one of them")
	}
	return nil
}

// Help is shown by 'stoa prices list --help'.
func (pricesListCmd) Help() string {
	return "A spend of a service costs its quantity times the unit price in force at that moment. Unit prices have at most 4 decimals and " +
		"quantities are whole numbers, so the product is exact: nothing is ever rounded."
}

type pricesSetCmd struct {
	Service     string    `arg:"" help:"The service's key, such as product_import."`
	Price       string    `arg:"" help:"Credits for one unit, with at most 4 decimals; 0 makes the service free." placeholder:"PRICE"`
	Unit        string    `help:"What is counted, such as item. Unless told, as before."`
	Description string    `help:"What the service is. Unless told, as before."`
	From        time.Time `help:"When the price begins, such as 2027-01-01T00:00:00Z. Unless told, now." placeholder:"TIME"`
	JSON        bool      `help:"Print JSON."`
}

// Help is shown by 'stoa prices set --help'.
func (pricesSetCmd) Help() string {
	return "Adds a price to the list. Prices in force, and those of before, stay " +
		"as they are, since they explain what was spent, and a price cannot begin in the past. A service that is not on the list yet " +
		"needs --unit and --description. Running servers use the price from its time on; nothing is restarted."
}

func (cmd pricesListCmd) Run(e *Env) error {
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	at := cmd.At
	if at.IsZero() {
		at = master.Now()
	}
	ledger := credits.New(master)
	var list []credits.Price
	if cmd.History {
		list, err = allPrices(e.Ctx, ledger)
	} else {
		list, err = ledger.Prices(e.Ctx, at)
	}
	if err != nil {
		return err
	}
	if cmd.JSON {
		records := make([]PriceRecord, len(list))
		for i, p := range list {
			records[i] = newPriceRecord(p)
		}
		return json.NewEncoder(e.Stdout).Encode(records)
	}
	return printPrices(e.Stdout, list)
}

// allPrices reads the whole history page by page.
func allPrices(ctx context.Context, ledger *credits.Ledger) (list []credits.Price, err error) {
	for cursor := ""; ; {
		prices, err := ledger.PriceHistory(ctx, page.MaxLimit, cursor)
		if err != nil {
			return nil, err
		}
		for _, p := range prices.Prices {
			list = append(list, p.Price)
		}
		if prices.NextCursor == nil {
			return list, nil
		}
		cursor = *prices.NextCursor
	}
}

func (cmd pricesSetCmd) Run(e *Env) error {
	unit, err := credits.ParseAmount(cmd.Price)
	if err != nil {
		return fmt.Errorf("the price %w", err)
	}
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	p, added, err := credits.New(master).SetPrice(e.Ctx, e.by, credits.Price{
		ServiceKey: cmd.Service, UnitPrice: unit, Unit: cmd.Unit, Description: cmd.Description, EffectiveFrom: cmd.From,
	})
	if err != nil {
		return plain(err)
	}
	if cmd.JSON {
		return json.NewEncoder(e.Stdout).Encode(struct {
			PriceRecord
			Added bool `json:"added"`
		}{newPriceRecord(p), added})
	}
	verb := "costs"
	if !added {
		verb = "costs already"
	}
	Printf(e.Stdout, "%s %s %s credits per %s since %s\n", p.ServiceKey, verb, p.UnitPrice, p.Unit, dateOf(p.EffectiveFrom))
	return nil
}

// PriceRecord is a price in the output. Its field names are those of the API.
type PriceRecord struct {
	ServiceKey    string         `json:"serviceKey"`
	UnitPrice     credits.Amount `json:"unitPrice"`
	Unit          string         `json:"unit"`
	Description   string         `json:"description"`
	EffectiveFrom time.Time      `json:"effectiveFrom"`
}

func newPriceRecord(p credits.Price) PriceRecord {
	p.EffectiveFrom = p.EffectiveFrom.UTC()
	return PriceRecord(p)
}

func printPrices(w io.Writer, list []credits.Price) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	Printf(table, "SERVICE\tCREDITS\tUNIT\tSINCE\tDESCRIPTION\n")
	for _, p := range list {
		Printf(table, "%s\t%s\t%s\t%s\t%s\n", p.ServiceKey, p.UnitPrice, p.Unit, dateOf(p.EffectiveFrom), p.Description)
	}
	return table.Flush()
}

func dateOf(t time.Time) string { return t.UTC().Format(time.RFC3339) }
