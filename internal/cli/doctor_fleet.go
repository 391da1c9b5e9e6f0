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

// fleet writes the inconsistencies of the stores, and repairs those that the flags select.
// The schema must be current.
func (cmd doctorCmd) fleet(ctx context.Context, e *Env, out *findingWriter) error {
	a, err := e.openApp(ctx)
	if err != nil {
		return err
	}
	defer a.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the findings are printed anyway
	if err := cmd.checkDrops(ctx, a); err != nil {
		return err
	}
	before := out.count
	for found, err := range a.Provisioning.Inconsistencies(ctx) {
		if err != nil {
			return err
		}
		out.write(cmd.repair(ctx, found))
	}
	if err := cmd.stuckRestores(ctx, a, out); err != nil {
		return err
	}
	if err := cmd.exposed(ctx, a, out); err != nil {
		return err
	}
	if out.count == before {
		out.write(Finding{Check: "fleet", OK: true, Detail: "nothing is out of place"})
	}
	return nil
}

// checkDrops checks that the databases to be dropped are orphans, before anything is repaired.
func (cmd doctorCmd) checkDrops(ctx context.Context, a *app.App) error {
	if len(cmd.Drop) == 0 {
		return nil
	}
	missing := slices.Clone(cmd.Drop)
	for found, err := range a.Provisioning.Inconsistencies(ctx) {
		if err != nil {
			return err
		}
		if found.Kind == provisioning.OrphanDatabase {
			missing = slices.DeleteFunc(missing, func(name string) bool { return name == found.Name })
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("--drop %s: there is no orphan database of that name; nothing was repaired", missing[0])
	}
	return nil
}

// stuckRestores writes the stores that a restore keeps closed until somebody acts.
func (cmd doctorCmd) stuckRestores(ctx context.Context, a *app.App, out *findingWriter) error {
	list, err := a.Backups.StuckRestores(ctx)
	for _, r := range list {
		store := r.StoreID.String()
		remedy := "its rows of before are put back as soon as that works: correct the cause in its database, which the log of serve names"
		if r.Done() {
			remedy = "restore another backup: stoa restore " + store + " --backup ID"
		}
		out.write(Finding{Check: "restore", Name: store, Store: store, Detail: "store " + store + " is closed: a restore failed: " + r.Fault.Message, Remedy: remedy})
	}
	return err
}

// exposed writes the stores whose tables the HTTP API of a Supabase project can reach, and
// revokes those privileges with Repair. It only counts stores whose database cannot be
// checked; their health check reports why.
func (cmd doctorCmd) exposed(ctx context.Context, a *app.App, out *findingWriter) error {
	unknown := 0
	err := a.Fleet.Exposed(ctx, 8, func(x fleet.Exposure) {
		switch x.Code {
		case "":
		case stoa.DatabaseExposed:
			out.write(cmd.closeExposed(ctx, a, x))
		default:
			unknown++
		}
	})
	if unknown > 0 {
		out.write(Finding{Check: "database exposure", OK: true, Detail: fmt.Sprintf("%d stores' databases could not be looked at", unknown)})
	}
	return err
}

// closeExposed revokes the privileges with Repair, and describes the store.
func (cmd doctorCmd) closeExposed(ctx context.Context, a *app.App, x fleet.Exposure) Finding {
	f := Finding{
		Check: string(x.Code), Store: x.Store.ID.String(), Name: x.Store.Slug, Detail: x.Store.Slug + ": " + x.Message,
		Remedy: "--repair revokes these rights; the store is served meanwhile",
	}
	if !cmd.Repair {
		return f
	}
	if err := a.Fleet.CloseExposed(ctx, x.Store.ID); err != nil {
		f.Detail += fmt.Sprintf(" (could not be repaired: %v)", err)
	} else {
		f.Repaired, f.Remedy = true, ""
	}
	return f
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
