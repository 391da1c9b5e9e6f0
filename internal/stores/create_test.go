package stores

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestCreate(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		got, err := b.Create(t.Context(), p, NewStore{Name: "  Café Zoë ", IdempotencyKey: "k"})
		testkit.Must(t, err)
		want := Store{
			ID: got.ID, Name: "Café Zoë", Slug: "cafe-zoe", Status: PendingDatabase, Role: authz.Owner,
			CreatedAt: got.CreatedAt, UpdatedAt: got.CreatedAt,
			Credits: &credits.Balance{StoreID: got.ID, UpdatedAt: got.CreatedAt},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		again, err := b.Get(t.Context(), p, got.ID)
		testkit.Must(t, err)
		if diff := cmp.Diff(want, again); diff != "" {
			t.Error(diff)
		}
		if n := b.count(t, `credit_balances WHERE balance = 0 AND reserved = 0 AND debt = 0 AND seq = 0`); n != 1 {
			t.Errorf("%d zero balances, want 1", n)
		}
		if n := b.count(t, `store_members WHERE role = 'owner'`); n != 1 {
			t.Errorf("%d owners, want 1", n)
		}
	})
}

func TestCreateWithSlug(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		first, err := b.Create(t.Context(), b.user(t), NewStore{Name: "Bakery", Slug: "bread"})
		testkit.Must(t, err)
		if first.Slug != "bread" {
			t.Errorf("slug %q", first.Slug)
		}
		_, err = b.Create(t.Context(), b.user(t), NewStore{Name: "Other", Slug: "bread"})
		wantCode(t, err, stoa.HostnameTaken)
		if got := fields(err); got != "[slug]" {
			t.Errorf("faults in %s", got)
		}
		if n := b.count(t, `stores`); n != 1 {
			t.Errorf("%d stores, want 1", n)
		}
	})
}

func TestCreateRefusesAndWritesNothing(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		for _, c := range []struct {
			name string
			n    NewStore
			want string
		}{
			{"no name", NewStore{}, "[name]"},
			{"blank name", NewStore{Name: " \t\u00a0"}, "[name]"},
			{"long name", NewStore{Name: strings.Repeat("é", 121)}, "[name]"},
			{"control in name", NewStore{Name: "a\x00b"}, "[name]"},
			{"direction override in name", NewStore{Name: "a\u202eb"}, "[name]"},
			{"zero width in name", NewStore{Name: "a\u200bb"}, "[name]"},
			{"URL in name", NewStore{Name: "Pay at https://evil.test/x"}, "[name]"},
			{"host in name", NewStore{Name: "Evil.com Store"}, "[name]"},
			{"address in name", NewStore{Name: "Write to me@evil.test"}, "[name]"},
			{"broken name", NewStore{Name: "a\xffb"}, "[name]"},
			{"bad slug", NewStore{Name: "A", Slug: "A B"}, "[slug]"},
			{"reserved slug", NewStore{Name: "A", Slug: "www"}, "[slug]"},
			{"long key", NewStore{Name: "A", IdempotencyKey: strings.Repeat("k", 256)}, "[idempotencyKey]"},
			{"NUL in key", NewStore{Name: "A", IdempotencyKey: "k\x00"}, "[idempotencyKey]"},
			{"everything", NewStore{Slug: "-", IdempotencyKey: "ä"}, "[name slug idempotencyKey]"},
		} {
			_, err := b.Create(t.Context(), p, c.n)
			if got := fields(err); stoa.CodeOf(err) != stoa.InvalidRequest || got != c.want {
				t.Errorf("%s: got %v with faults in %s, want %s", c.name, err, got, c.want)
			}
		}
		if n := b.count(t, `stores`) + b.count(t, `store_members`) + b.count(t, `credit_balances`); n != 0 {
			t.Errorf("%d rows were written", n)
		}
		longest, err := b.Create(t.Context(), p, NewStore{Name: " " + strings.Repeat("é", 120) + " ", IdempotencyKey: strings.Repeat("~", 255)})
		testkit.Must(t, err)
		if longest.Name != strings.Repeat("é", 120) {
			t.Errorf("name %q", longest.Name)
		}
	})
}

func TestCreateIsIdempotent(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		first, err := b.Create(t.Context(), p, NewStore{Name: "Bakery", IdempotencyKey: "k"})
		testkit.Must(t, err)
		for _, n := range []NewStore{{Name: "Bakery", IdempotencyKey: "k"}, {Name: " Bakery ", IdempotencyKey: "k"}} {
			again, err := b.Create(t.Context(), p, n)
			testkit.Must(t, err)
			if diff := cmp.Diff(first, again); diff != "" {
				t.Error(diff)
			}
		}
		for _, n := range []NewStore{{Name: "bakery", IdempotencyKey: "k"}, {Name: "Bakery", Slug: "bakery", IdempotencyKey: "k"}} {
			_, err := b.Create(t.Context(), p, n)
			wantCode(t, err, stoa.IdempotencyConflict)
		}
		// A key belongs to its user, and without a key every call creates a store.
		other, err := b.Create(t.Context(), b.user(t), NewStore{Name: "Bakery", IdempotencyKey: "k"})
		testkit.Must(t, err)
		second, third := b.create(t, p, "Bakery"), b.create(t, p, "Bakery")
		ids := []stoa.StoreID{first.ID, other.ID, second.ID, third.ID}
		slices.SortFunc(ids, func(a, b stoa.StoreID) int { return strings.Compare(a.String(), b.String()) })
		if len(slices.Compact(ids)) != 4 || b.count(t, `stores`) != 4 {
			t.Errorf("stores %v, want 4", ids)
		}
	})
}

func TestCreateAtOnceWithOneKey(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		for i, slug := range []string{"", "bread"} {
			p := b.user(t)
			made, errs := atOnce(8, func(int) (Store, error) {
				return b.Create(t.Context(), p, NewStore{Name: "Bakery", Slug: slug, IdempotencyKey: "k"})
			})
			testkit.Must(t, errors.Join(errs...))
			for _, s := range made {
				if s.ID != made[0].ID {
					t.Errorf("slug %q: two stores, %s and %s", slug, made[0].Slug, s.Slug)
				}
			}
			if n := b.count(t, `stores`); n != i+1 {
				t.Errorf("slug %q: %d stores, want %d", slug, n, i+1)
			}
		}
	})
}

func TestCreateAtOnceWithOneKeyForTwoRequests(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		made, errs := atOnce(8, func(i int) (Store, error) {
			return b.Create(t.Context(), p, NewStore{Name: fmt.Sprint("Bakery ", i%2), Slug: "bread", IdempotencyKey: "k"})
		})
		winner := slices.IndexFunc(errs, func(err error) bool { return err == nil })
		for i, err := range errs {
			if (i-winner)%2 == 0 && (err != nil || made[i].ID != made[winner].ID) {
				t.Errorf("the winner's request gives %s, %v", made[i].Slug, err)
			}
			if (i-winner)%2 != 0 {
				wantCode(t, err, stoa.IdempotencyConflict)
			}
		}
		if n := b.count(t, `stores`); n != 1 {
			t.Errorf("%d stores, want 1", n)
		}
	})
}

func TestCreateAtOnceOfOneName(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		made, errs := atOnce(20, func(int) (Store, error) { return b.Create(t.Context(), p, NewStore{Name: "Bakery"}) })
		testkit.Must(t, errors.Join(errs...))
		slugs := make([]string, len(made))
		for i, s := range made {
			slugs[i] = s.Slug
		}
		slices.Sort(slugs)
		if distinct := len(slices.Compact(slices.Clone(slugs))); distinct != 20 {
			t.Errorf("%d slugs for 20 stores: %v", distinct, slugs)
		}
		if !slices.Contains(slugs, "bakery") || !slices.Contains(slugs, "bakery-5") {
			t.Errorf("the short slugs were not used: %v", slugs)
		}
	})
}

func TestCreateFirst(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		cause := errors.New("the registration fails later on")
		err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			if _, err := b.CreateFirst(t.Context(), tx, p, "Bakery"); err != nil {
				return err
			}
			return cause
		})
		if !errors.Is(err, cause) || b.count(t, `stores`) != 0 {
			t.Fatalf("%v; %d stores", err, b.count(t, `stores`))
		}
		var first Store
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) (err error) {
			first, err = b.CreateFirst(t.Context(), tx, p, " Bakery ")
			return err
		}))
		got, err := b.Get(t.Context(), p, first.ID)
		testkit.Must(t, err)
		if diff := cmp.Diff(got, first); diff != "" {
			t.Error(diff)
		}
		err = db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			_, err := b.CreateFirst(t.Context(), tx, p, " ")
			return err
		})
		if got := fields(err); got != "[name]" {
			t.Errorf("faults in %s, want [name]", got)
		}
	})
}
