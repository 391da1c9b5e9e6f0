package accounts

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/passwordhash"
)

func TestLogin(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		r := registration()
		r.Password = keyring.NewSecret("caf\u00e9 au lait") // é as one code point
		registered, _, err := a.Register(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		// The same address in another case, and the same é as two code points.
		session, err := a.Login(t.Context(), "OWNER@example.com", keyring.NewSecret("cafe\u0301 au lait"), Client{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(registered.User, session.User); diff != "" {
			t.Errorf("user (-registered +logged in):\n%s", diff)
		}
		first, second := principal(t, a, registered), principal(t, a, session)
		if first.UserID != second.UserID || first.SessionID == second.SessionID {
			t.Errorf("principals %+v and %+v: want one user with two sessions", first, second)
		}
	})
}

func TestLoginRefusals(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		want := stoa.Errorf(stoa.InvalidCredentials, "The e-mail address or the password is not correct.")
		for _, c := range []struct{ name, email, password string }{
			{"wrong password", "owner@example.com", "another password"},
			{"no password", "owner@example.com", ""},
			{"case of the password", "owner@example.com", strings.ToLower(goodPassword)},
			{"endless password", "owner@example.com", strings.Repeat("x", 1<<20)},
			{"unknown address", "nobody@example.com", goodPassword},
			{"no address", "", goodPassword},
			{"not an address", "owner@example.com\x00", goodPassword},
			{"pattern", "%@example.com", goodPassword},
		} {
			session, err := a.Login(t.Context(), c.email, keyring.NewSecret(c.password), Client{})
			if diff := cmp.Diff(error(want), err); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.name, diff)
			}
			if !session.AccessToken.IsZero() || !session.RefreshToken.IsZero() {
				t.Errorf("%s: tokens were issued", c.name)
			}
		}
		wantRows(t, db, rowsOf(1, 0))
	})
}

// TestLoginWorksAlikeForUnknownAddress checks that a login hashes the password for any
// address. Every slot is taken, so a login that reaches the hash waits until its
// context ends.
func TestLoginWorksAlikeForUnknownAddress(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		for range cap(a.passwords.slots) {
			a.passwords.slots <- struct{}{}
		}
		for _, email := range []string{"owner@example.com", "nobody@example.com", "not an address"} {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			_, err := a.Login(ctx, email, keyring.NewSecret("another password"), Client{})
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: error %v, want the deadline", email, err)
			}
		}
	})
	if p := argon2Of(t, newHasher(recommended).unmatchable); p.Cost != recommended || len(p.Key) != hashSize {
		t.Errorf("the hash for unknown addresses: %+v", p.Cost)
	}
}

func TestLoginUpgradesHash(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		old := storedHash(t, db)
		login := func(password string) error {
			_, err := a.Login(t.Context(), "owner@example.com", keyring.NewSecret(password), Client{})
			return err
		}

		if err := login(goodPassword); err != nil || storedHash(t, db) != old {
			t.Errorf("a login at the same cost changed the hash (error %v)", err)
		}
		a.passwords = newHasher(passwordhash.Argon2Cost{Memory: 128, Passes: 2, Threads: 1})
		if err := login("another password"); stoa.CodeOf(err) != stoa.InvalidCredentials || storedHash(t, db) != old {
			t.Errorf("a refused login changed the hash (error %v)", err)
		}
		if err := login(goodPassword); err != nil {
			t.Fatal(err)
		}
		if got := storedHash(t, db); !strings.HasPrefix(got, "$argon2id$v=19$m=128,t=2,p=1$") {
			t.Errorf("hash after login at a new cost: %s", got)
		}
		if err := login(goodPassword); err != nil {
			t.Errorf("login with the upgraded hash: %v", err)
		}

		// The hash of another system is replaced by one of this platform.
		for foreign, password := range map[string]string{
			"$2b$06$abcdefghijklmnopqrstuuUYThwYmIWln5x39D.gxp.bQbpZrfEYG":            "letmein",
			"pbkdf2_sha256$1000$seasalt$jbu7IkbRD5VtvV9ziNvcqNHxXuBd4+gsmw9KgWiw4GI=": "letme\u0301in",
		} {
			exec(t, db, `UPDATE users SET password_hash = $1`, foreign)
			if err := login("another password"); stoa.CodeOf(err) != stoa.InvalidCredentials || storedHash(t, db) != foreign {
				t.Errorf("%.6s: a refused login changed the hash (error %v)", foreign, err)
			}
			for range 2 {
				if err := login(password); err != nil || !strings.HasPrefix(storedHash(t, db), "$argon2id$") {
					t.Errorf("%.6s: %v, stored %.10s", foreign, err, storedHash(t, db))
				}
			}
		}
	})
}

// TestUpgradeKeepsNewerHash checks two logins that read the same old hash. The slower
// one must not overwrite a newer hash, which may be that of another password.
func TestUpgradeKeepsNewerHash(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		user := register(t, a).User
		old := storedHash(t, db)
		exec(t, db, `UPDATE users SET password_hash = 'newer'`)
		err := db.Tx(t.Context(), func(tx *masterdb.Tx) error { return replaceHash(t.Context(), tx, user.ID, old, "replacement") })
		if got := storedHash(t, db); got != "newer" || !errors.Is(err, errHashChanged) {
			t.Errorf("hash %q, error %v", got, err)
		}
	})
}

func storedHash(t *testing.T, db *masterdb.DB) string {
	t.Helper()
	var hash string
	if err := db.Get(t.Context(), &hash, `SELECT password_hash FROM users`); err != nil {
		t.Fatal(err)
	}
	return hash
}

func TestLoginWithUnreadableHash(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		exec(t, db, `UPDATE users SET password_hash = '$argon2id$v=19$m=4294967295,t=2,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA'`)
		_, err := a.Login(t.Context(), "owner@example.com", keyring.NewSecret(goodPassword), Client{})
		if !errors.Is(err, passwordhash.ErrFormat) {
			t.Errorf("error %v, want %v", err, passwordhash.ErrFormat)
		}
	})
}
