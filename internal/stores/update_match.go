package stores

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/version"
)

// Version identifies what Update can change of the store as it was read: its name
// and slug in the master, the rest of its profile in its database. It is empty without a
// profile.
func (s Store) Version() string {
	if s.Profile == nil {
		return ""
	}
	return versionOf(*s.Profile, Identity{Name: s.Name, Slug: s.Slug})
}

func versionOf(p storedata.Profile, master Identity) string {
	p.Name, p.Slug = master.Name, master.Slug
	return p.Version()
}

// updateMatching changes the profile if match holds. It compares the version while it has
// locked both the store's row in its own database, which orders changes of the profile, and
// the one in the master, which orders changes of name and slug.
func (r *Registry) updateMatching(ctx context.Context, db *tenantdb.DB, p authz.Principal, id stoa.StoreID, match version.Match, patch storedata.ProfilePatch) (storedata.Profile, error) {
	var before, written Identity
	recorded := false // in the master, which has name and slug then
	profile, err := storedata.ChangeProfile(ctx, db, id, func(present storedata.Profile) (storedata.ProfilePatch, error) {
		if recorded { // the tenant's transaction is repeated
			return patch, match.Check(versionOf(present, before))
		}
		err := r.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
			if before, err = lockActive(ctx, tx, id); err != nil {
				return err
			}
			if err := match.Check(versionOf(present, before)); err != nil {
				return err
			}
			if patch.Name == nil && patch.Slug == nil {
				return recordUpdate(ctx, tx, p, id, patch, audit.Success, nil)
			}
			written, err = r.renameLocked(ctx, tx, p, id, patch, before)
			return err
		})
		if err != nil {
			return storedata.ProfilePatch{}, err
		}
		recorded = true
		if patch.Name != nil || patch.Slug != nil {
			patch.Name, patch.Slug = &written.Name, &written.Slug
		}
		return patch, nil
	})
	renamed := patch.Name != nil || patch.Slug != nil
	if err != nil {
		if !recorded {
			return storedata.Profile{}, err
		}
		patch.Name, patch.Slug = nil, nil // the job completes name and slug
		return storedata.Profile{}, r.recordFailure(ctx, p, id, patch, err)
	}
	if !renamed {
		return profile, nil
	}
	present, err := r.ReadIdentity(ctx, id)
	if err != nil || present == written {
		return profile, err
	}
	return r.writeIdentity(ctx, db, id, present, storedata.ProfilePatch{})
}
