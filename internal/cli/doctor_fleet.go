package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/provisioning"
)

// fleet finds inconsistencies of the stores and repairs those that the flags select. The
// schema must be current.
func (cmd doctorCmd) fleet(ctx context.Context, e *Env) ([]Finding, error) {
	a, err := e.openApp(ctx)
	if err != nil {
		return nil, err
	}
	defer a.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the findings are printed anyway
	found, err := a.Provisioning.Inconsistencies(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range cmd.Drop {
		if !slices.ContainsFunc(found, func(a provisioning.Inconsistency) bool {
			return a.Kind == provisioning.OrphanDatabase && a.Name == name
		}) {
			return nil, fmt.Errorf("--drop %s: there is no orphan database of that name; nothing was repaired", name)
		}
	}
	var out []Finding
	for _, anomaly := range found {
		out = append(out, cmd.repair(ctx, anomaly))
	}
	open, err := cmd.exposed(ctx, a)
	if out = append(out, open...); len(out) == 0 && err == nil {
		out = []Finding{{Check: "fleet", OK: true, Detail: "nothing is out of place"}}
	}
	return out, err
}

// exposed finds the stores whose tables the HTTP API of a Supabase project can reach, and
// revokes those privileges with Repair. It only counts stores whose database cannot be
// checked; their health check reports why.
func (cmd doctorCmd) exposed(ctx context.Context, a *app.App) (out []Finding, err error) {
	var open []fleet.Exposure
	unknown := 0
	err = a.Fleet.Exposed(ctx, 8, func(x fleet.Exposure) {
		switch x.Code {
		case "":
		case stoa.DatabaseExposed:
			open = append(open, x)
		default:
			unknown++
		}
	})
	for _, x := range open {
		f := Finding{
			Check: string(x.Code), Store: x.Store.ID.String(), Name: x.Store.Slug, Detail: x.Store.Slug + ": " + x.Message,
			Remedy: "--repair revokes these rights; the store is served meanwhile",
		}
		if cmd.Repair {
			if err := a.Fleet.CloseExposed(ctx, x.Store.ID); err != nil {
				f.Detail += fmt.Sprintf(" (could not be repaired: %v)", err)
			} else {
				f.Repaired, f.Remedy = true, ""
			}
		}
		out = append(out, f)
	}
	if unknown > 0 {
		out = append(out, Finding{Check: "database exposure", OK: true, Detail: fmt.Sprintf("%d stores' databases could not be looked at", unknown)})
	}
	return out, err
}

// repair repairs one inconsistency with Repair. It drops a database only if Drop names
// it.
func (cmd doctorCmd) repair(ctx context.Context, a provisioning.Inconsistency) Finding {
	f := Finding{Check: string(a.Kind), Name: a.Name, Detail: a.Name + ": " + a.Detail, Remedy: a.Remedy}
	if !a.StoreID.IsZero() {
		f.Store = a.StoreID.String()
	}
	switch {
	case a.Kind == provisioning.OrphanDatabase:
		f.Remedy += ": --repair --drop " + a.Name
	case a.Repairable():
		f.Remedy += " (--repair)"
	}
	if !cmd.Repair || !a.Repairable() || a.Kind == provisioning.OrphanDatabase && !slices.Contains(cmd.Drop, a.Name) {
		return f
	}
	if err := a.Repair(ctx); err != nil {
		f.Detail += fmt.Sprintf(" (could not be repaired: %v)", err)
		return f
	}
	f.Repaired, f.Remedy = true, ""
	return f
}
