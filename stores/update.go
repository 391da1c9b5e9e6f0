package stores

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/shop"
	"github.com/stoahq/stoa/tenantdb"
)

// Update changes a store's profile in its own database. Name and slug are
// kept in the master too, which decides: they change there first, together
// with a job that carries them into the tenant database should the write
// below not get through.
//
// It fails with invalid_request, naming every fault, with hostname_taken, and
// with tenant_unavailable when the store's database cannot be reached.
// Nothing has changed then, but for a database lost in the middle of the
// call: the job finishes what the master has. A store that is not active
// cannot be changed. A caller that may write and not read gets its ID alone.
func (r *Registry) Update(ctx context.Context, p access.Principal, id stoa.StoreID, patch shop.ProfilePatch) (Store, error) {
	if _, err := access.Check(ctx, r.db, p, id, access.UpdateStore); err != nil {
		return Store{}, err
	}
	if err := r.checkPatch(ctx, id, patch); err != nil {
		return Store{}, err
	}
	// Before activation the credentials may lead to anybody's database.
	status, err := readStatus(ctx, r.db, id, "")
	if err != nil {
		return Store{}, err
	}
	if err := status.requireActive(); err != nil {
		return Store{}, err
	}
	lease, err := r.tenants.Acquire(ctx, id)
	if err != nil {
		return Store{}, err
	}
	defer lease.Release()
	if err := r.write(ctx, lease.DB, p, id, patch); err != nil {
		return Store{}, err
	}
	if p.Within(id, access.ReadStore) != nil {
		return Store{ID: id}, nil
	}
	return r.Get(ctx, p, id)
}

// write records the change in the audit log before the tenant database has
// it, since no transaction spans both. Should the tenant's part then fail, a
// second entry says so.
func (r *Registry) write(ctx context.Context, db *tenantdb.DB, p access.Principal, id stoa.StoreID, patch shop.ProfilePatch) error {
	if patch.Name == nil && patch.Slug == nil {
		if err := r.db.Tx(ctx, func(tx *masterdb.Tx) error { return recordUpdate(ctx, tx, p, id, patch, access.Success, nil) }); err != nil {
			return err
		}
		_, err := shop.UpdateProfile(ctx, db, id, patch)
		return r.recordFailure(ctx, p, id, patch, err)
	}
	// The lease may be on connections that have died since; find out before
	// the master changes.
	if _, err := shop.ReadProfile(ctx, db, id); err != nil {
		return err
	}
	if err := r.rename(ctx, p, id, patch); err != nil {
		return err
	}
	err := r.carry(ctx, db, id, patch)
	patch.Name, patch.Slug = nil, nil // these the job carries on
	return r.recordFailure(ctx, p, id, patch, err)
}

// recordUpdate names the changed fields and, of name and slug, the values. An
// empty patch changes nothing.
func recordUpdate(ctx context.Context, tx *masterdb.Tx, p access.Principal, id stoa.StoreID, patch shop.ProfilePatch, o access.Outcome, values map[string]string) error {
	fields := patch.Fields()
	if len(fields) == 0 {
		return nil
	}
	details := map[string]string{"fields": strings.Join(fields, ",")}
	maps.Copy(details, values)
	return access.Record(ctx, tx, p, access.Event{Action: access.StoreUpdated, Store: id, Outcome: o, Details: details})
}

// recordFailure notes that the tenant's part of a recorded change failed with
// cause, which it returns.
func (r *Registry) recordFailure(ctx context.Context, p access.Principal, id stoa.StoreID, patch shop.ProfilePatch, cause error) error {
	if cause == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return recordUpdate(ctx, tx, p, id, patch, access.Failed, map[string]string{"code": string(stoa.CodeOf(cause))})
	})
	if err != nil {
		r.log.ErrorContext(ctx, "failed change of a store is not in the audit log", "store", id.String(), "err", err)
	}
	return cause
}

// carry writes patch to the tenant, with name and slug as the master has
// them. Of several writers the slowest must not have the last word with a
// name of before: each looks into the master again after its write, and
// whoever finds another name there writes that.
func (r *Registry) carry(ctx context.Context, db *tenantdb.DB, id stoa.StoreID, patch shop.ProfilePatch) error {
	identity, err := r.ReadIdentity(ctx, id)
	for err == nil {
		written := identity
		patch.Name, patch.Slug = &written.Name, &written.Slug
		if _, err := shop.UpdateProfile(ctx, db, id, patch); err != nil {
			return err
		}
		if identity, err = r.ReadIdentity(ctx, id); identity == written {
			return err
		}
		patch = shop.ProfilePatch{} // the rest is written
	}
	return err
}

// checkPatch finds every fault before anything is written anywhere. The
// registry is stricter about names and slugs than a store on its own would be.
// The name and slug that the store has are no fault, even if what is allowed has
// changed since.
func (r *Registry) checkPatch(ctx context.Context, id stoa.StoreID, patch shop.ProfilePatch) error {
	var faults stoa.Invalid
	add := func(field string, value *string, fault func(string) string) {
		if value != nil && fault(*value) != "" {
			faults.Add(field, "%s", fault(*value))
		}
	}
	add("name", patch.Name, NameFault)
	add("slug", patch.Slug, r.platform.slugFault)
	if len(faults) > 0 {
		present, err := r.ReadIdentity(ctx, id)
		if err != nil {
			return err
		}
		faults = slices.DeleteFunc(faults, func(f stoa.FieldError) bool {
			return f.Field == "name" && *patch.Name == present.Name || f.Field == "slug" && *patch.Slug == present.Slug
		})
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

// rename changes what the master holds. The store's own hostname follows its
// slug.
func (r *Registry) rename(ctx context.Context, p access.Principal, id stoa.StoreID, patch shop.ProfilePatch) error {
	name, slug := patch.Name, patch.Slug
	return r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		status, err := lockStatus(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := status.requireActive(); err != nil {
			return err
		}
		before, err := readIdentity(ctx, tx, id)
		if err != nil {
			return err
		}
		values := map[string]string{}
		if name != nil {
			values["oldName"], values["newName"] = before.Name, *name
			if _, err := tx.Exec(ctx, `UPDATE stores SET name = $2, updated_at = $3 WHERE id = $1`, id, *name, tx.Now); err != nil {
				return err
			}
		}
		if slug != nil {
			values["oldSlug"], values["newSlug"] = before.Slug, *slug
			if err := r.moveSlug(ctx, tx, id, *slug); err != nil {
				return err
			}
		}
		if err := recordUpdate(ctx, tx, p, id, patch, access.Success, values); err != nil {
			return err
		}
		return r.queue.Enqueue(ctx, tx, CarryIdentity{StoreID: id})
	})
}

// moveSlug gives the store another slug and keeps the one of before for its
// owner. The caller has locked the store.
func (r *Registry) moveSlug(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, slug string) error {
	before, err := readIdentity(ctx, tx, id)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE stores SET slug = $2, updated_at = $3 WHERE id = $1`, id, slug, tx.Now)
	if masterdb.IsUnique(err) {
		return slugTaken(slug)
	}
	if err != nil {
		return err
	}
	if before.Slug != slug {
		if err := r.exchangeSlug(ctx, tx, id, before.Slug, slug); err != nil {
			return err
		}
	}
	return r.putHostname(ctx, tx, id, slug)
}

// exchangeSlug claims the slug that the store's row has now and releases the
// one of before.
func (r *Registry) exchangeSlug(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, before, slug string) error {
	owner, err := access.OwnerOf(ctx, tx, id)
	if err != nil && !errors.Is(err, masterdb.ErrNotFound) { // a store may have no owner left
		return err
	}
	free, err := claimSlug(ctx, tx, id, owner, slug)
	if err != nil {
		return err
	}
	if !free {
		return slugTaken(slug)
	}
	if err := checkReleased(ctx, tx, id); err != nil {
		return err
	}
	return r.releaseSlug(ctx, tx, id, before)
}

// CarryIdentity is the job that writes a store's name and slug, as the
// master has them, into its tenant database.
type CarryIdentity struct {
	jobs.AtTenant `json:"-"`

	StoreID stoa.StoreID `json:"storeId"`
}

// Kind implements jobs.Args.
func (CarryIdentity) Kind() string { return "stores.carry_identity" }

// CarryIdentityTimeout bounds one attempt.
const CarryIdentityTimeout = 30 * time.Second

// CarryIdentity runs the job.
func (r *Registry) CarryIdentity(ctx context.Context, job CarryIdentity) error {
	lease, err := r.tenants.Acquire(ctx, job.StoreID)
	if stoa.CodeOf(err) == stoa.StorePendingDatabase {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	defer lease.Release()
	return r.carry(ctx, lease.DB, job.StoreID, shop.ProfilePatch{})
}
