package accounts

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/passwordhash"
	"github.com/stoahq/stoa/internal/stores"
)

const goodPassword = "SecurePassword123!"

// testCost keeps tests fast: argon2 is slow under the race detector.
var testCost = passwordhash.Argon2Cost{Memory: 64, Passes: 1, Threads: 1}

// setup returns accounts on db as one replica has them.
func setup(t testing.TB, db *masterdb.DB, ring *keyring.Ring) *Accounts {
	t.Helper()
	// Registration needs neither tenant databases nor the queue.
	registry := stores.New(db, credits.New(db), nil, nil, hostnames.New(db, "shops.test", slog.New(slog.DiscardHandler)), slog.New(slog.DiscardHandler))
	log := slog.New(slog.DiscardHandler)
	queue, err := jobs.New(db, log, jobs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sender, err := mail.New(mail.Options{From: "Stoa <no-reply@example.com>", Dir: t.TempDir(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	a := New(db, registry, ring, Options{Encryption: ring, Queue: queue, Mail: sender, BaseURL: "https://stoa.test"})
	a.HandleMails(queue)
	a.passwords = newHasher(testCost)
	return a
}

func testRing(t testing.TB, specs ...keyring.Secret) *keyring.Ring {
	t.Helper()
	if len(specs) == 0 {
		specs = []keyring.Secret{keyring.Generate("test")}
	}
	var parts []string
	for _, s := range specs {
		parts = append(parts, s.Reveal())
	}
	ring, err := keyring.Parse(keyring.NewSecret(strings.Join(parts, ",")))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func registration() Registration {
	return Registration{
		Email: "owner@example.com", Password: keyring.NewSecret(goodPassword),
		FirstName: "Olive", LastName: "Owner",
		Client: Client{Address: "192.0.2.7", UserAgent: "test/1.0"},
	}
}

// register creates the account of registration().
func register(t testing.TB, a *Accounts) Session {
	t.Helper()
	session, _, err := a.Register(t.Context(), registration())
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// markVerified marks the address as verified, as its owner would.
func markVerified(t testing.TB, a *Accounts, email string) {
	t.Helper()
	if _, err := ConfirmEmail(t.Context(), a.db, authz.Principal{}, email); err != nil {
		t.Fatal(err)
	}
}

func principal(t testing.TB, a *Accounts, s Session) authz.Principal {
	t.Helper()
	p, err := a.Authenticate(t.Context(), s.AccessToken.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func wantCode(t *testing.T, err error, want stoa.Code) {
	t.Helper()
	if got := stoa.CodeOf(err); got != want {
		t.Errorf("error %v has code %q, want %q", err, got, want)
	}
}

func exec(t *testing.T, db *masterdb.DB, query string, args ...any) {
	t.Helper()
	err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// wantRows checks the number of rows in each table.
func wantRows(t *testing.T, db *masterdb.DB, want map[string]int) {
	t.Helper()
	got := map[string]int{}
	for table := range want {
		var n int
		if err := db.Get(t.Context(), &n, "SELECT count(*) FROM "+table); err != nil {
			t.Fatal(err)
		}
		got[table] = n
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func rowsOf(users, stores int) map[string]int {
	return map[string]int{
		"users": users, "sessions": users, "refresh_tokens": users,
		"stores": stores, "store_members": stores,
	}
}

func TestRegister(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		r := registration()
		r.Email, r.FirstName = "Owner@Example.COM", "  Olive\t"
		before := time.Now()
		session, store, err := a.Register(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if store != nil {
			t.Errorf("store %+v without a name for one", store)
		}
		want := User{
			ID: session.User.ID, Email: "owner@example.com", FirstName: "Olive", LastName: "Owner",
			Role: "user", CreatedAt: session.User.CreatedAt,
		}
		if diff := cmp.Diff(want, session.User); diff != "" || want.ID.IsZero() {
			t.Errorf("user (-want +got):\n%s", diff)
		}
		if age := session.User.CreatedAt.Sub(before); age < -time.Second || age > time.Minute {
			t.Errorf("created %v after the call", age)
		}
		if session.ExpiresIn != 15*time.Minute {
			t.Errorf("access token expires in %v", session.ExpiresIn)
		}
		me, err := a.Me(t.Context(), principal(t, a, session))
		if diff := cmp.Diff(session.User, me); diff != "" || err != nil {
			t.Errorf("Me: %v (-registered +read):\n%s", err, diff)
		}
		if _, err := a.Refresh(t.Context(), session.RefreshToken, Client{}); err != nil {
			t.Errorf("the first refresh token: %v", err)
		}
		wantRows(t, db, map[string]int{"users": 1, "sessions": 1, "stores": 0})
	})
}

func TestRegisterWithStore(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		r := registration()
		r.StoreName = new("Olives")
		session, store, err := a.Register(t.Context(), r)
		if err != nil || store == nil {
			t.Fatalf("store %v, error %v", store, err)
		}
		if store.Name != "Olives" || store.Status != stores.PendingDatabase {
			t.Errorf("store %q is %s", store.Name, store.Status)
		}
		members, err := authz.Memberships(t.Context(), db, session.User.ID)
		if err != nil || len(members) != 1 || members[0].StoreID != store.ID || members[0].Role != authz.Owner {
			t.Errorf("memberships %+v, error %v; want owner of %v", members, err, store.ID)
		}
		wantRows(t, db, rowsOf(1, 1))
	})
}

func TestRegisterWritesNothingWhenRefused(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		bad := Registration{Email: "owner", Password: keyring.NewSecret("short"), LastName: "\x00"}
		_, _, err := a.Register(t.Context(), bad)
		if diff := cmp.Diff([]string{"email", "password", "firstName", "lastName"}, faultyFields(err)); diff != "" {
			t.Errorf("faults (-want +got):\n%s", diff)
		}
		r := registration()
		r.StoreName = new(" ")
		_, _, err = a.Register(t.Context(), r)
		wantCode(t, err, stoa.InvalidRequest)
		if diff := cmp.Diff([]string{"storeName"}, faultyFields(err)); diff != "" {
			t.Errorf("faults (-want +got):\n%s", diff)
		}
		wantRows(t, db, rowsOf(0, 0))
	})
}

func faultyFields(err error) []string {
	var e *stoa.Error
	if !errors.As(err, &e) {
		return nil
	}
	var fields []string
	for _, f := range e.Fields {
		fields = append(fields, f.Field)
	}
	return fields
}

func TestRegisterEmailTaken(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		r := registration()
		r.Email, r.StoreName = "OWNER@example.Com", new("Second")
		_, _, err := a.Register(t.Context(), r)
		wantCode(t, err, stoa.EmailTaken)
		wantRows(t, db, rowsOf(1, 0))
	})
}

func TestRegisterConcurrently(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		errs := concurrently(8, func(i int) error {
			r := registration()
			r.Email = strings.ToUpper(r.Email[:i%5]) + r.Email[i%5:]
			r.StoreName = new(fmt.Sprintf("Store %d", i))
			_, _, err := a.Register(t.Context(), r)
			return err
		})
		if diff := cmp.Diff(map[stoa.Code]int{"": 1, stoa.EmailTaken: 7}, codes(errs)); diff != "" {
			t.Errorf("outcomes (-want +got):\n%s\n%v", diff, errs)
		}
		wantRows(t, db, rowsOf(1, 1))
	})
}

// concurrently makes n concurrent calls of fn and returns their errors.
func concurrently(n int, fn func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = fn(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

func codes(errs []error) map[stoa.Code]int {
	out := map[stoa.Code]int{}
	for _, err := range errs {
		out[stoa.CodeOf(err)]++
	}
	return out
}

func TestMeOfDeletedUser(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		p := principal(t, a, register(t, a))
		exec(t, db, `DELETE FROM users`)
		_, err := a.Me(t.Context(), p)
		wantCode(t, err, stoa.SessionRevoked)
	})
}

func TestSecretsAreNotStored(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		first := register(t, a)
		second, err := a.Refresh(t.Context(), first.RefreshToken, Client{})
		if err != nil {
			t.Fatal(err)
		}
		dump := dumpTables(t, db, "users", "sessions", "refresh_tokens")
		for _, present := range []string{"owner@example.com", "$argon2id$", first.RefreshToken.Hash(), second.RefreshToken.Hash()} {
			if !strings.Contains(dump, present) {
				t.Fatalf("the dump lacks %q, so it proves nothing:\n%s", present, dump)
			}
		}
		for name, secret := range map[string]string{
			"password": goodPassword, "first refresh token": first.RefreshToken.Reveal(), "second refresh token": second.RefreshToken.Reveal(),
			"first access token": first.AccessToken.Reveal(), "second access token": second.AccessToken.Reveal(),
		} {
			if strings.Contains(dump, strings.TrimPrefix(secret, refreshPrefix)) {
				t.Errorf("the %s is stored in plain text", name)
			}
		}
	})
}

// dumpTables prints every column of every row.
func dumpTables(t *testing.T, db *masterdb.DB, tables ...string) string {
	t.Helper()
	var out strings.Builder
	for _, table := range tables {
		var rows []map[string]any
		if err := db.Select(t.Context(), &rows, "SELECT * FROM "+table); err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			fmt.Fprintf(&out, "%s %v\n", table, row)
		}
	}
	return out.String()
}
