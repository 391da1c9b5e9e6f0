package storedata_test

import (
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

var seeded = map[string]int{"settings": 6, "categories": 1, "pages": 5}

func TestSeed(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		for _, err := range atOnce(8, func(int) error { return storedata.Seed(t.Context(), db) }) {
			testkit.Must(t, err)
		}
		for table, want := range seeded {
			if got := count(t, db, table); got != want {
				t.Errorf("%s has %d rows, want %d", table, got, want)
			}
		}
		if n := count(t, db, "products"); n != 0 {
			t.Errorf("%d products nobody asked for", n)
		}
	})
}

// TestSeedAddsWhatIsAbsent checks that Seed, after an interruption or with the owner's
// own texts present, inserts missing rows and leaves the others unchanged.
func TestSeedAddsWhatIsAbsent(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		testkit.Must(t, storedata.Seed(t.Context(), db))
		for _, change := range []string{
			`UPDATE pages SET title = 'Ours' WHERE slug = 'home'`,
			`DELETE FROM pages WHERE slug IN ('about', 'terms')`,
			`DELETE FROM settings`,
		} {
			_, err := db.Exec(t.Context(), change)
			testkit.Must(t, err)
		}
		testkit.Must(t, storedata.Seed(t.Context(), db))
		for table, want := range seeded {
			if got := count(t, db, table); got != want {
				t.Errorf("%s has %d rows, want %d", table, got, want)
			}
		}
		var title string
		testkit.Must(t, db.Get(t.Context(), &title, `SELECT title FROM pages WHERE slug = 'home'`))
		if title != "Ours" {
			t.Errorf("title is %q again", title)
		}
		if n := count(t, db, "pages WHERE published AND slug IN ('terms', 'privacy')"); n != 0 {
			t.Error("legal texts nobody wrote are published")
		}
	})
}

func owner() storedata.Owner {
	return storedata.Owner{ID: stoa.NewID[stoa.UserID](), Email: "Ada.Byron@Example.com", FirstName: hostile, LastName: "O'Neil 🧁 "}
}

func TestCreateOwner(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		want := owner()
		for _, err := range atOnce(8, func(int) error { return storedata.CreateOwner(t.Context(), db, want) }) {
			testkit.Must(t, err)
		}
		var got struct {
			Email  string
			Key    string `db:"email_key"`
			First  string `db:"first_name"`
			Last   string `db:"last_name"`
			Role   string
			Active bool
		}
		changed := want
		changed.Email, changed.FirstName = "new@example.com", "New"
		testkit.Must(t, storedata.CreateOwner(t.Context(), db, changed))
		testkit.Must(t, db.Get(t.Context(), &got, `SELECT email, email_key, first_name, last_name, role, active FROM users`))
		if got.Email != want.Email || got.First != want.FirstName || got.Last != want.LastName ||
			got.Role != "owner" || !got.Active || got.Key != "ada.byron@example.com" {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// TestOwnersAddressIsNotTakenOver checks that addresses are equal if they differ only in
// case, and only then, on every engine: no collation may fold accents or ß.
func TestOwnersAddressIsNotTakenOver(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		testkit.Must(t, storedata.CreateOwner(t.Context(), db, owner()))
		second := owner()
		second.Email = "ada.byron@EXAMPLE.com"
		if err := storedata.CreateOwner(t.Context(), db, second); stoa.CodeOf(err) != stoa.EmailTaken {
			t.Errorf("got %v, want email_taken", err)
		}
		for _, different := range []string{"adá.byron@example.com", "rene@strasse.example", "rené@strasse.example", "rene@straße.example"} {
			other := owner()
			other.Email = different
			if err := storedata.CreateOwner(t.Context(), db, other); err != nil {
				t.Errorf("%s: %v", different, err)
			}
		}
	})
}
