package moves

import (
	"context"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// targetAccess returns the credentials of the target. In a Supabase project that was chosen
// it makes the store's role first, and records its credentials at once: an undo needs them.
func (e *execution) targetAccess(ctx context.Context) (credential.Credentials, error) {
	c, err := e.tenants.UnsealCredentials(e.move.StoreID, e.TargetCredentials)
	if err != nil || c.PlannedProject() == "" {
		return c, err
	}
	if c, err = e.databases.PrepareProject(ctx, e.move.StoreID, c, e); err != nil {
		return c, err
	}
	save, err := e.setTarget(c)
	if err != nil {
		return c, err
	}
	return c, e.record(ctx, e.move.Step, save)
}

// ReportWait implements link.WaitReporter.
func (e *execution) ReportWait(ctx context.Context, cause error) error {
	e.log.InfoContext(ctx, "move waits for its project", "store_id", e.move.StoreID.String(), "move", e.move.ID.String(), "err", cause)
	return nil
}

// setTarget replaces the credentials of the target. It returns what it changes in the master
// database.
func (e *execution) setTarget(c credential.Credentials) (applied, error) {
	sealed, err := e.tenants.SealCredentials(e.move.StoreID, c)
	if err != nil {
		return nil, err
	}
	e.TargetCredentials, e.move.Target = sealed, placeOf(c)
	return func(ctx context.Context, tx *masterdb.Tx) error {
		place := placeOf(c)
		_, err := tx.Exec(ctx, `UPDATE store_moves SET target_credentials = $2, target_host = $3, target_port = $4, target_name = $5 WHERE id = $1`,
			e.move.ID, sealed, place.Host, place.Port, place.Name)
		return err
	}, nil
}
