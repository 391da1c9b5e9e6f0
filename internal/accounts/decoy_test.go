package accounts

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestDecoysCostWhatUsersDo checks that a password for an address without an account is compared
// with hashes that cost as much as those of the users, imported ones among them, always the same
// for one address, and that it opens nothing, even if it is the decoy's.
func TestDecoysCostWhatUsersDo(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		const password = "a password of many"
		a := setup(t, db, testRing(t))
		for _, email := range []string{"nobody@example.com", "", "no address"} {
			_, err := a.Login(t.Context(), email, keyring.NewSecret(password), Client{})
			wantCode(t, err, stoa.InvalidCredentials) // there are no users yet
		}
		imported, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		testkit.Must(t, err)
		own, err := a.passwords.hash(t.Context(), keyring.NewSecret(password))
		testkit.Must(t, err)
		for i := range 100 {
			hash := own
			if i%2 == 0 {
				hash = string(imported)
			}
			exec(t, db, `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at) VALUES ($1, $2, $3, '', '', $4, $4)`,
				stoa.NewID[stoa.UserID](), fmt.Sprintf("customer%d@example.com", i), hash, time.Now().UTC())
		}
		costly := 0
		for i := range 100 {
			email := fmt.Sprintf("unknown%d@example.com", i)
			user, hash, err := a.userByEmail(t.Context(), email)
			testkit.Must(t, err)
			again, err := a.decoyHash(t.Context(), email)
			testkit.Must(t, err)
			if !user.ID.IsZero() || hash != again {
				t.Fatalf("%s: user %v, and another hash the second time: %v", email, user.ID, hash != again)
			}
			if strings.HasPrefix(hash, "$2") {
				costly++
			}
			if i < 10 {
				_, err = a.Login(t.Context(), email, keyring.NewSecret(password), Client{})
				wantCode(t, err, stoa.InvalidCredentials)
			}
		}
		if costly < 20 || costly > 80 {
			t.Errorf("%d of 100 addresses cost what half of the users do", costly)
		}
	})
}
