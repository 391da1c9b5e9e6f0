package cli

import (
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/masterdb"
)

// order checks the order of the operator's custom migrations; with Fleet in every store. A
// store with migrations that this release does not know is not a fault: they may belong to
// a later release.
func (cmd doctorCmd) order(e *Env) (out []Finding) {
	const check = "custom migrations"
	var status fleet.Status
	err := e.withFleet(true, func(_ *masterdb.DB, f *fleet.Service) error {
		faults, err := f.CheckOrder(e.Ctx, cmd.Fleet)
		if err != nil {
			return err
		}
		for _, fault := range faults {
			out = append(out, Finding{Check: check, Detail: fault.String(), Remedy: "'stoa tenants check' names what differs in each store"})
		}
		status, err = f.Status(e.Ctx)
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
		return append(out, Finding{Check: check, Detail: err.Error(), Remedy: "correct STOA_TENANT_MIGRATIONS"})
	case ahead > 0:
		return append(out, Finding{Check: check, OK: true, Detail: storesThat(ahead, "has", "have") + " later ones than STOA_TENANT_MIGRATIONS names here: " +
			"new stores are made without them"})
	case len(out) == 0 && e.Cfg.TenantMigrations != "":
		return []Finding{{Check: check, OK: true, Detail: "in order in the stores that were asked"}}
	}
	return out
}
