package stores

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/version"
)

// Update changes a store's profile in its own database. The master also stores the name
// and slug, and its values are authoritative. They change there first, together with a
// job that writes them to the tenant database if the write below fails.
//
// Update fails with invalid_request, which lists every fault, with hostname_taken, and
// with tenant_unavailable when the store's database cannot be reached. Nothing has
// changed then, unless the connection to the database was lost during the call: the job
// then completes the change of name and slug. A store that is not active cannot be
// changed. A caller that may write but not read gets only the store's ID.
//
// Update fails with edit_conflict and changes nothing when match does not hold for the
// store's Version: somebody has changed the store since the caller read it.
func (r *Registry) Update(ctx context.Context, p authz.Principal, id stoa.StoreID, match version.Match, patch storedata.ProfilePatch) (Store, error) {
	role, err := authz.Check(ctx, r.db, p, id, authz.UpdateStore)
	if err != nil {
		return Store{}, err
	}
	if err := r.checkUpdate(ctx, id, patch); err != nil {
		return Store{}, err
	}
	lease, err := r.tenants.Acquire(ctx, id)
	if err != nil {
		return Store{}, err
	}
	defer lease.Release()
	var profile storedata.Profile
	switch {
	case match != nil:
		profile, err = r.updateMatching(ctx, lease.DB, p, id, match, patch)
	case patch.Name == nil && patch.Slug == nil:
		profile, err = r.updateTenant(ctx, lease.DB, p, id, patch)
	default:
		profile, err = r.updateBoth(ctx, lease.DB, p, id, patch)
	}
	if err != nil {
		return Store{}, err
	}
	if p.Within(id, authz.ReadStore) != nil {
		return Store{ID: id}, nil
	}
	s, err := r.readAs(ctx, role, id)
	if err != nil {
		return Store{}, err
	}
	s.Profile = &profile
	return s, r.recordHealth(ctx, &s, nil)
}

// checkUpdate fails for a patch with faults, and for a store that cannot be changed:
// before activation its credentials may be for any database.
func (r *Registry) checkUpdate(ctx context.Context, id stoa.StoreID, patch storedata.ProfilePatch) error {
	var present struct {
		Identity
		Status Status
	}
	err := r.db.Get(ctx, &present, `SELECT name, slug, status FROM stores WHERE id = $1`, id)
	if errors.Is(err, masterdb.ErrNotFound) {
		return authz.ErrStoreNotFound()
	}
	if err != nil {
		return err
	}
	if err := r.checkPatch(present.Identity, patch); err != nil {
		return err
	}
	return present.Status.requireActive()
}

// checkPatch reports every fault before anything is written. The registry is stricter
// about names and slugs than a tenant database. The present name and slug are not faults,
// even if the rules have changed since.
func (r *Registry) checkPatch(present Identity, patch storedata.ProfilePatch) error {
	var faults stoa.Invalid
	if patch.Name != nil && *patch.Name != present.Name {
		if fault := NameFault(*patch.Name); fault != "" {
			faults.Add("name", "%s", fault)
		}
	}
	if patch.Slug != nil && *patch.Slug != present.Slug {
		if fault := r.slugFault(*patch.Slug); fault != "" {
			faults.Add("slug", "%s", fault)
		}
	}
	var others *stoa.Error
	if errors.As(patch.Validate(), &others) {
		for _, f := range others.Fields {
			if !slices.ContainsFunc(faults, func(known stoa.FieldError) bool { return known.Field == f.Field }) {
				faults = append(faults, f)
			}
		}
	}
	return faults.Err()
}

// updateTenant changes fields that only the tenant database stores. No transaction spans
// both databases. So the change is written to the audit log first and, if the tenant
// database fails, a second entry records the failure.
func (r *Registry) updateTenant(ctx context.Context, db *tenantdb.DB, p authz.Principal, id stoa.StoreID, patch storedata.ProfilePatch) (storedata.Profile, error) {
	err := r.db.Tx(ctx, func(tx *masterdb.Tx) error { return recordUpdate(ctx, tx, p, id, patch, audit.Success, nil) })
	if err != nil {
		return storedata.Profile{}, err
	}
	profile, err := storedata.UpdateProfile(ctx, db, id, patch)
	return profile, r.recordFailure(ctx, p, id, patch, err)
}

// updateBoth changes name or slug, which the master also stores, with the other fields of
// the patch.
func (r *Registry) updateBoth(ctx context.Context, db *tenantdb.DB, p authz.Principal, id stoa.StoreID, patch storedata.ProfilePatch) (storedata.Profile, error) {
	// The leased connections may have failed in the meantime. This read detects that
	// before the master changes.
	if _, err := storedata.ReadProfile(ctx, db, id); err != nil {
		return storedata.Profile{}, err
	}
	identity, err := r.rename(ctx, p, id, patch)
	if err != nil {
		return storedata.Profile{}, err
	}
	profile, err := r.writeIdentity(ctx, db, id, identity, patch)
	patch.Name, patch.Slug = nil, nil // the job completes name and slug
	return profile, r.recordFailure(ctx, p, id, patch, err)
}

// recordUpdate writes the names of the changed fields, and the values of name and slug,
// to the audit log. An empty patch is not recorded.
func recordUpdate(ctx context.Context, tx *masterdb.Tx, p authz.Principal, id stoa.StoreID, patch storedata.ProfilePatch, o audit.Outcome, values map[string]string) error {
	fields := patch.Fields()
	if len(fields) == 0 {
		return nil
	}
	details := map[string]string{"fields": strings.Join(fields, ",")}
	maps.Copy(details, values)
	return audit.Record(ctx, tx, p, audit.Event{Action: audit.StoreUpdated, Store: id, Outcome: o, Details: details})
}

// recordFailure records in the audit log that the tenant's part of a recorded change
// failed with cause. It returns cause.
func (r *Registry) recordFailure(ctx context.Context, p authz.Principal, id stoa.StoreID, patch storedata.ProfilePatch, cause error) error {
	if cause == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return recordUpdate(ctx, tx, p, id, patch, audit.Failed, map[string]string{"code": string(stoa.CodeOf(cause))})
	})
	if err != nil {
		r.log.ErrorContext(ctx, "failed change of a store is not in the audit log", "store", id.String(), "err", err)
	}
	return cause
}

// writeIdentity writes the patch to the tenant database, with name and slug from the
// master. With several concurrent writers the slowest one must not leave an old name. So
// each reads the master again after its write, and writes once more if the identity there
// has changed.
func (r *Registry) writeIdentity(ctx context.Context, db *tenantdb.DB, id stoa.StoreID, identity Identity, patch storedata.ProfilePatch) (storedata.Profile, error) {
	for {
		written := identity
		patch.Name, patch.Slug = &written.Name, &written.Slug
		profile, err := storedata.UpdateProfile(ctx, db, id, patch)
		if err != nil {
			return storedata.Profile{}, err
		}
		if identity, err = r.ReadIdentity(ctx, id); err != nil || identity == written {
			return profile, err
		}
		patch = storedata.ProfilePatch{} // the other fields have been written
	}
}

// rename changes name and slug in the master and returns the values stored there after
// the change. The store's hostname below the platform's domain follows its slug.
func (r *Registry) rename(ctx context.Context, p authz.Principal, id stoa.StoreID, patch storedata.ProfilePatch) (identity Identity, err error) {
	err = r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		before, err := lockActive(ctx, tx, id)
		if err != nil {
			return err
		}
		identity, err = r.renameLocked(ctx, tx, p, id, patch, before)
		return err
	})
	return identity, err
}

// lockActive locks the store's row until tx ends and returns its name and slug. It fails
// for a store that cannot be changed.
func lockActive(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) (Identity, error) {
	status, err := lockStatus(ctx, tx, id)
	if err != nil {
		return Identity{}, err
	}
	if err := status.requireActive(); err != nil {
		return Identity{}, err
	}
	return readIdentity(ctx, tx, id)
}

// renameLocked does what rename does for a store that the caller has locked.
func (r *Registry) renameLocked(ctx context.Context, tx *masterdb.Tx, p authz.Principal, id stoa.StoreID, patch storedata.ProfilePatch, before Identity) (Identity, error) {
	identity := before
	values := map[string]string{}
	if patch.Name != nil {
		identity.Name = *patch.Name
		values["oldName"], values["newName"] = before.Name, identity.Name
		if _, err := tx.Exec(ctx, `UPDATE stores SET name = $2, updated_at = $3 WHERE id = $1`, id, identity.Name, tx.Now); err != nil {
			return identity, err
		}
	}
	if patch.Slug != nil {
		identity.Slug = *patch.Slug
		values["oldSlug"], values["newSlug"] = before.Slug, identity.Slug
		if err := r.changeSlug(ctx, tx, id, before.Slug, identity.Slug); err != nil {
			return identity, err
		}
	}
	if err := recordUpdate(ctx, tx, p, id, patch, audit.Success, values); err != nil {
		return identity, err
	}
	return identity, r.queue.Enqueue(ctx, tx, SyncIdentity{StoreID: id})
}

// changeSlug gives the store another slug and keeps the previous one for its
// owner. The caller has locked the store.
func (r *Registry) changeSlug(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, before, slug string) error {
	_, err := tx.Exec(ctx, `UPDATE stores SET slug = $2, updated_at = $3 WHERE id = $1`, id, slug, tx.Now)
	if masterdb.IsUnique(err) {
		return errSlugTaken(slug)
	}
	if err != nil {
		return err
	}
	if before != slug {
		if err := r.exchangeSlug(ctx, tx, id, before, slug); err != nil {
			return err
		}
	}
	return r.mapSlug(ctx, tx, id, slug)
}

// exchangeSlug claims the slug that the store's row has now and releases the
// previous one.
func (r *Registry) exchangeSlug(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, before, slug string) error {
	owner, err := authz.OwnerOf(ctx, tx, id)
	if err != nil && !errors.Is(err, masterdb.ErrNotFound) { // a store may have lost its last owner
		return err
	}
	free, err := claimSlug(ctx, tx, id, owner.UserID, slug)
	if err != nil {
		return err
	}
	if !free {
		return errSlugTaken(slug)
	}
	if err := checkReleased(ctx, tx, id); err != nil {
		return err
	}
	return r.releaseSlug(ctx, tx, id, before)
}

// SyncIdentity is the job that writes a store's name and slug from the master to its
// tenant database.
type SyncIdentity struct {
	jobs.AtTenant `json:"-"`

	StoreID stoa.StoreID `json:"storeId"`
}

// Kind implements jobs.Args.
func (SyncIdentity) Kind() string { return "stores.carry_identity" }

// SyncIdentityTimeout limits one attempt.
const SyncIdentityTimeout = 30 * time.Second

// SyncIdentity runs the job.
func (r *Registry) SyncIdentity(ctx context.Context, job SyncIdentity) error {
	lease, err := r.tenants.Acquire(ctx, job.StoreID)
	if stoa.CodeOf(err) == stoa.StorePendingDatabase {
		return nil // the store was deleted meanwhile
	}
	if err != nil {
		return err
	}
	defer lease.Release()
	identity, err := r.ReadIdentity(ctx, job.StoreID)
	if err != nil {
		return err
	}
	_, err = r.writeIdentity(ctx, lease.DB, job.StoreID, identity, storedata.ProfilePatch{})
	return err
}
