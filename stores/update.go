package stores

import (
	"context"
	"errors"
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
// cannot be changed.
func (r *Registry) Update(ctx context.Context, p access.Principal, id stoa.StoreID, patch shop.ProfilePatch) (Store, error) {
	if _, err := access.Check(ctx, r.db, p, id, access.UpdateStore); err != nil {
		return Store{}, err
	}
	if err := checkPatch(patch); err != nil {
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
	if err := r.write(ctx, lease.DB, id, patch); err != nil {
		return Store{}, err
	}
	return r.Get(ctx, p, id)
}

func (r *Registry) write(ctx context.Context, db *tenantdb.DB, id stoa.StoreID, patch shop.ProfilePatch) error {
	if patch.Name == nil && patch.Slug == nil {
		_, err := shop.UpdateProfile(ctx, db, id, patch)
		return err
	}
	// The lease may be on connections that have died since; find out before
	// the master changes.
	if _, err := shop.ReadProfile(ctx, db, id); err != nil {
		return err
	}
	if err := r.rename(ctx, id, patch.Name, patch.Slug); err != nil {
		return err
	}
	return r.carry(ctx, db, id, patch)
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
// registry is stricter about slugs than a store on its own would be.
func checkPatch(patch shop.ProfilePatch) error {
	err := patch.Validate()
	if patch.Slug == nil || slugFault(*patch.Slug) == "" {
		return err
	}
	var faults stoa.Invalid
	faults.Add("slug", "%s", slugFault(*patch.Slug))
	var others *stoa.Error
	if errors.As(err, &others) {
		for _, f := range others.Fields {
			if f.Field != "slug" {
				faults = append(faults, f)
			}
		}
	}
	return faults.Err()
}

// rename changes what the master holds. The store's own hostname follows its
// slug.
func (r *Registry) rename(ctx context.Context, id stoa.StoreID, name, slug *string) error {
	return r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		status, err := lockStatus(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := status.requireActive(); err != nil {
			return err
		}
		if name != nil {
			if _, err := tx.Exec(ctx, `UPDATE stores SET name = $2, updated_at = $3 WHERE id = $1`, id, *name, tx.Now); err != nil {
				return err
			}
		}
		if slug != nil {
			if err := r.moveSlug(ctx, tx, id, *slug); err != nil {
				return err
			}
		}
		return r.queue.Enqueue(ctx, tx, CarryIdentity{StoreID: id})
	})
}

func (r *Registry) moveSlug(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, slug string) error {
	_, err := tx.Exec(ctx, `UPDATE stores SET slug = $2, updated_at = $3 WHERE id = $1`, id, slug, tx.Now)
	if masterdb.IsUnique(err) {
		return slugTaken(slug)
	}
	if err != nil {
		return err
	}
	return r.putHostname(ctx, tx, id, slug)
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
