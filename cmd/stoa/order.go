package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/stoahq/stoa/fleet"
	"github.com/stoahq/stoa/masterdb"
)

// checkOrder refuses to start with migrations of the operator's own that cannot
// run in their order. A fault that may be of one merchant's database alone is
// logged.
func checkOrder(ctx context.Context, f *fleet.Service, log *slog.Logger) error {
	faults, err := f.CheckOrder(ctx, false)
	if err != nil {
		return err
	}
	for _, fault := range faults {
		if !fault.Refuses() {
			log.WarnContext(ctx, "own migrations out of order", "fault", fault.String())
		}
	}
	return orderError(faults)
}

// orderError is the error of those faults that refuse a start, or nil.
func orderError(faults []fleet.OrderFault) error {
	var words []string
	for _, fault := range faults {
		if fault.Refuses() {
			words = append(words, fault.String())
		}
	}
	if len(words) == 0 {
		return nil
	}
	return errors.New("your own migrations (STOA_TENANT_MIGRATIONS) cannot run in order: " + strings.Join(words, "; "))
}

// order is the doctor's check of the operator's own migrations; with --fleet it
// asks every store. Stores that have some which are not here are no fault: they
// may be of a later release.
func (cmd doctorCmd) order(e *env) (out []finding) {
	const check = "own migrations"
	var status fleet.Status
	err := e.withFleet(true, func(_ *masterdb.DB, f *fleet.Service) error {
		faults, err := f.CheckOrder(e.ctx, cmd.Fleet)
		if err != nil {
			return err
		}
		for _, fault := range faults {
			out = append(out, finding{Check: check, Detail: fault.String(), Remedy: "'stoa tenants check' names what differs in each store"})
		}
		status, err = f.Status(e.ctx)
		return err
	})
	ahead := 0
	for _, v := range status.Versions {
		if v.Own > status.Expected.Own {
			ahead += v.Stores
		}
	}
	switch {
	case err != nil:
		return append(out, finding{Check: check, Detail: err.Error(), Remedy: "correct STOA_TENANT_MIGRATIONS"})
	case ahead > 0:
		return append(out, finding{Check: check, OK: true, Detail: fmt.Sprintf("%d stores have later ones than STOA_TENANT_MIGRATIONS names here: "+
			"new stores are made without them", ahead)})
	case len(out) == 0 && e.cfg.TenantMigrations != "":
		return []finding{{Check: check, OK: true, Detail: "in order in the stores that were asked"}}
	}
	return out
}
