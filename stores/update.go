package stores

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/shop"
)

// Update changes a store's profile in its own database. Name and slug are
// kept in the master too, which decides: they change there first, together
// with a job that carries them into the tenant database should the write
// below not get through.
func (r *Registry) Update(ctx context.Context, p access.Principal, id stoa.StoreID, patch shop.ProfilePatch) (Store, error) {
	if _, err := access.Check(ctx, r.db, p, id, access.UpdateStore); err != nil {
		return Store{}, err
	}
	if err := checkPatch(patch); err != nil {
		return Store{}, err
	}
	lease, err := r.tenants.Acquire(ctx, id)
	if err != nil {
		return Store{}, err
	}
	defer lease.Release()
	if patch.Name != nil || patch.Slug != nil {
		if err := r.rename(ctx, id, patch.Name, patch.Slug); err != nil {
			return Store{}, err
		}
	}
	if _, err := shop.UpdateProfile(ctx, lease.DB, id, patch); err != nil {
		return Store{}, err
	}
	return r.Get(ctx, p, id)
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
	before, err := readHostnames(ctx, r.db, id)
	if err != nil {
		return err
	}
	err = r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		status, err := lockStatus(ctx, tx, id)
		if err != nil {
			return err
		}
		if status != Active {
			return stoa.Errorf(stoa.StoreSuspended, "This store is not active; its name cannot change now.")
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
	r.resolver.forget(before)
	r.Changed(ctx, id)
	return err
}

func (r *Registry) moveSlug(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, slug string) error {
	_, err := tx.Exec(ctx, `UPDATE stores SET slug = $2, updated_at = $3 WHERE id = $1`, id, slug, tx.Now)
	if err == nil {
		_, err = tx.Exec(ctx, `UPDATE store_hostnames SET hostname = $2 WHERE store_id = $1 AND NOT custom`, id, r.hostname(slug))
	}
	if masterdb.IsUnique(err) {
		return slugTaken(slug)
	}
	return err
}

// CarryIdentity is the job that writes a store's name and slug, as the
// master has them, into its tenant database.
type CarryIdentity struct {
	StoreID stoa.StoreID `json:"storeId"`
}

// Kind implements jobs.Args.
func (CarryIdentity) Kind() string { return "stores.carry_identity" }

// CarryIdentityTimeout bounds one attempt.
const CarryIdentityTimeout = 30 * time.Second

// CarryIdentity runs the job. It reads the master anew, so that jobs out of
// order end in the right state.
func (r *Registry) CarryIdentity(ctx context.Context, job CarryIdentity) error {
	identity, err := r.ReadIdentity(ctx, job.StoreID)
	if err != nil {
		return err
	}
	lease, err := r.tenants.Acquire(ctx, job.StoreID)
	if err != nil {
		return err
	}
	defer lease.Release()
	_, err = shop.UpdateProfile(ctx, lease.DB, job.StoreID, shop.ProfilePatch{Name: &identity.Name, Slug: &identity.Slug})
	return err
}
