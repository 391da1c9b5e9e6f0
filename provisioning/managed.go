package provisioning

import "context"

// makeManaged makes the run's database, if it is a managed one on the
// operator's server. Its credentials were stored before the run began: an
// interruption between role, database and grants leaves nothing that the next
// execution does not find and complete.
func (w *work) makeManaged(ctx context.Context) error {
	c, err := w.tenants.Load(ctx, w.db, w.run.StoreID)
	if err != nil {
		return err
	}
	return w.tenants.MakeManaged(ctx, c)
}
