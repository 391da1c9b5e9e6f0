package stores

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestUpdateOfAVersion(t *testing.T) {
	t.Parallel()
	eachTenant(t, func(t *testing.T, b replica, engine credential.EngineName) {
		p := b.user(t)
		opened, _ := b.open(t, p, engine, "Bakery")
		read, err := b.Get(t.Context(), p, opened.ID)
		testkit.Must(t, err)
		first := read.Version()
		got, err := b.Update(t.Context(), p, read.ID, []string{"another", first}, storedata.ProfilePatch{City: ptr("Wien"), Theme: ptr(storedata.JSON(`{"b":1,"a":[2]}`))})
		testkit.Must(t, err)
		second := got.Version()
		if second == first || second == "" || got.Profile.City != "Wien" {
			t.Errorf("after a change: version %q, before %q, %+v", second, first, got.Profile)
		}
		read, err = b.Get(t.Context(), p, read.ID)
		testkit.Must(t, err)
		if read.Version() != second {
			t.Errorf("read version %q, the change returned %q", read.Version(), second)
		}
		before, recorded := b.state(t, p, read.ID), b.count(t, `audit_events`)
		for _, patch := range []storedata.ProfilePatch{{City: ptr("Graz")}, {Name: ptr("Bread")}, {Slug: ptr("bread-" + string(engine)), City: ptr("Graz")}, {}} {
			for _, versions := range [][]string{{first}, {}, {""}} {
				_, err := b.Update(t.Context(), p, read.ID, versions, patch)
				wantCode(t, err, stoa.EditConflict)
			}
		}
		if diff := cmp.Diff(before, b.state(t, p, read.ID)); diff != "" {
			t.Error(diff)
		}
		if n := b.count(t, `audit_events`); n != recorded {
			t.Errorf("%d entries in the audit log, want %d: nothing was changed", n, recorded)
		}
		slug := "bread-" + string(engine)
		got, err = b.Update(t.Context(), p, read.ID, []string{second}, storedata.ProfilePatch{Name: ptr("Bread"), Slug: &slug})
		testkit.Must(t, err)
		b.agree(t, p, read.ID, "Bread", slug)
		if got.Version() == second {
			t.Error("a new name has the version of the old one")
		}
	})
}

// TestUpdateOfAVersionWhileTheTenantLags checks that a name which the master has and the
// tenant database not yet is not overwritten.
func TestUpdateOfAVersionWhileTheTenantLags(t *testing.T) {
	t.Parallel()
	eachTenant(t, func(t *testing.T, b replica, engine credential.EngineName) {
		p := b.user(t)
		opened, _ := b.open(t, p, engine, "Bakery")
		read, err := b.Get(t.Context(), p, opened.ID)
		testkit.Must(t, err)
		testkit.Must(t, b.renameMaster(t, read.ID, storedata.ProfilePatch{Name: ptr("Renamed")}))
		_, err = b.Update(t.Context(), p, read.ID, []string{read.Version()}, storedata.ProfilePatch{Name: ptr("Lost")})
		wantCode(t, err, stoa.EditConflict)
		read, err = b.Get(t.Context(), p, read.ID)
		testkit.Must(t, err)
		_, err = b.Update(t.Context(), p, read.ID, []string{read.Version()}, storedata.ProfilePatch{City: ptr("Wien"), Name: ptr("Seen")})
		testkit.Must(t, err)
		b.agree(t, p, read.ID, "Seen", read.Slug)
	})
}

// TestUpdateOfAVersionAtOnce checks that of callers who have read the same version one
// changes the store, whichever fields they change.
func TestUpdateOfAVersionAtOnce(t *testing.T) {
	t.Parallel()
	eachTenant(t, func(t *testing.T, b replica, engine credential.EngineName) {
		b.start(t)
		p := b.user(t)
		opened, _ := b.open(t, p, engine, "Bakery")
		for round := range 3 {
			read, err := b.Get(t.Context(), p, opened.ID)
			testkit.Must(t, err)
			_, errs := atOnce(6, func(i int) (any, error) {
				text := fmt.Sprintf("%s-%d-%d", engine, round, i)
				patch := storedata.ProfilePatch{Name: &text, City: &text}
				if i%2 == 0 {
					patch = storedata.ProfilePatch{City: &text}
				}
				_, err := b.Update(t.Context(), p, read.ID, []string{read.Version()}, patch)
				return nil, err
			})
			won := 0
			for _, err := range errs {
				switch {
				case err == nil:
					won++
				case stoa.CodeOf(err) != stoa.EditConflict:
					t.Error(errors.Join(errs...))
				}
			}
			if won != 1 {
				t.Errorf("%d callers changed one version, want 1", won)
			}
		}
		b.settle(t)
	})
}
