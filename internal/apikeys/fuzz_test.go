package apikeys

import (
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// FuzzAuthenticate checks that only an issued key authenticates, and that a string that
// is not a key is refused without a query.
func FuzzAuthenticate(f *testing.F) {
	db := masterdbtest.Open(f, masterdbtest.URL(f, masterdb.SQLite))
	user, store, secret := stoa.NewID[stoa.UserID](), stoa.NewID[stoa.StoreID](), generate()
	err := db.Tx(f.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(f.Context(), `
			INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
			VALUES ($1, 'owner@example.com', 'x', 'A', 'B', $2, $2)`, user, tx.Now)
		if err != nil {
			return err
		}
		_, err = tx.Exec(f.Context(), `
			INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
			VALUES ($1, 'a-store', 'A store', 'active', $2, $3, $3)`, store, user, tx.Now)
		if err != nil {
			return err
		}
		if err := authz.Grant(f.Context(), tx, store, user, authz.Owner); err != nil {
			return err
		}
		key := Key{ID: stoa.NewID[stoa.KeyID](), Name: "K", Prefix: secret.Reveal()[:shownLength], Scopes: "store:read"}
		return insert(f.Context(), tx, authz.Principal{UserID: user}, store, key, "", secret)
	})
	if err != nil {
		f.Fatal(err)
	}
	good, keys := secret.Reveal(), NewAuthenticator(db)
	for _, seed := range []string{
		good, generate().Reveal(), prefix, prefix + strings.Repeat("A", randomLength+sumLength), strings.ToLower(good), good + " ", good[:len(good)-1], "sk_live_x",
		prefix + strings.Repeat("\x00", randomLength+sumLength), prefix + strings.Repeat("Ä", randomLength),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := keys.Authenticate(t.Context(), text)
		if text == good {
			if err != nil || p.Key.StoreID != store {
				t.Fatalf("the issued key: %+v, %v", p, err)
			}
			return
		}
		if stoa.CodeOf(err) != stoa.TokenInvalid || p.IsKey() {
			t.Fatalf("%q is %+v, %v", text, p, err)
		}
		if isWellFormed(text) && (len(text) != len(good) || !strings.HasPrefix(text, prefix)) {
			t.Fatalf("%q is well-formed", text)
		}
	})
}
