package idempotency

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func newStore(t *testing.T, db *masterdb.DB) *Store {
	t.Helper()
	ring, err := keyring.Parse(keyring.Generate("k1"))
	testkit.Must(t, err)
	return New(db, ring)
}

func user() authz.Principal { return authz.Principal{UserID: stoa.NewID[stoa.UserID]()} }

func request(p authz.Principal, key, hash string) Request {
	return Request{Caller: p, Key: key, Hash: hash, Timeout: time.Minute}
}

// begun fails the test unless the key is claimed.
func begun(t *testing.T, s *Store, req Request) *Call {
	t.Helper()
	c, kept, err := s.Begin(t.Context(), req)
	if err != nil || kept != nil {
		t.Fatalf("%+v: %+v, %v", req, kept, err)
	}
	return c
}

func refused(t *testing.T, s *Store, req Request, want stoa.Code) *stoa.Error {
	t.Helper()
	_, kept, err := s.Begin(t.Context(), req)
	if stoa.CodeOf(err) != want || kept != nil {
		t.Fatalf("%+v: %+v, %v, want %s", req, kept, err, want)
	}
	return err.(*stoa.Error) //nolint:errorlint // Begin returns it so
}

func TestAnswersAreKept(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s, p := newStore(t, db), user()
		call := begun(t, s, request(p, "k", "a"))
		if e := refused(t, s, request(p, "k", "a"), stoa.IdempotencyInProgress); e.RetryAfter <= 0 {
			t.Errorf("retry after %v", e.RetryAfter)
		}
		_ = refused(t, s, request(p, "k", "b"), stoa.IdempotencyConflict)
		answer := Answer{Status: 201, Header: map[string]string{"Location": "/x"}, Body: []byte(`{"key":"stoa_live_secret"}`)}
		testkit.Must(t, call.Keep(t.Context(), answer))
		for range 2 {
			_, kept, err := s.Begin(t.Context(), request(p, "k", "a"))
			if err != nil || kept == nil || kept.Status != 201 || kept.Header["Location"] != "/x" || string(kept.Body) != string(answer.Body) {
				t.Fatalf("%+v, %v", kept, err)
			}
		}
		_ = refused(t, s, request(p, "k", "b"), stoa.IdempotencyConflict)

		// Nobody else's call meets the key.
		acting, key := p, p
		acting.Impersonator = stoa.NewID[stoa.UserID]()
		key.Key.ID = stoa.NewID[stoa.KeyID]()
		for _, other := range []authz.Principal{user(), acting, key} {
			begun(t, s, request(other, "k", "b"))
		}
		var sealed []string
		if err := db.Select(t.Context(), &sealed, `SELECT sealed FROM idempotency_keys`); err != nil || len(sealed) != 4 {
			t.Fatalf("%d rows, %v", len(sealed), err)
		}
		for _, text := range sealed {
			if keyring.KeyID(text) != "k1" || strings.Contains(text, "secret") {
				t.Errorf("stored in clear: %s", text)
			}
		}
	})
}

func TestReleasedKeys(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s, p := newStore(t, db), user()
		testkit.Must(t, begun(t, s, request(p, "k", "a")).Release(t.Context()))
		call := begun(t, s, request(p, "k", "another"))
		testkit.Must(t, call.Keep(t.Context(), Answer{Status: 204}))
		testkit.Must(t, call.Release(t.Context())) // too late: it is not claimed any more
		if _, kept, err := s.Begin(t.Context(), request(p, "k", "another")); err != nil || kept == nil || kept.Status != 204 {
			t.Fatalf("%+v, %v", kept, err)
		}
	})
}

// TestKilledCalls checks that a call whose process was killed blocks its key until its
// timeout only, and that such a call, if it is alive, does not keep its answer afterwards.
func TestKilledCalls(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s, p := newStore(t, db), user()
		req := request(p, "k", "a")
		req.Timeout = -time.Second
		dead := begun(t, s, req)
		_ = refused(t, s, request(p, "k", "b"), stoa.IdempotencyConflict)
		next := begun(t, s, request(p, "k", "a"))
		_ = refused(t, s, request(p, "k", "a"), stoa.IdempotencyInProgress)
		testkit.Must(t, dead.Keep(t.Context(), Answer{Status: 500}))
		testkit.Must(t, dead.Release(t.Context()))
		_ = refused(t, s, request(p, "k", "a"), stoa.IdempotencyInProgress)
		testkit.Must(t, next.Keep(t.Context(), Answer{Status: 200}))
		if _, kept, err := s.Begin(t.Context(), request(p, "k", "a")); err != nil || kept == nil || kept.Status != 200 {
			t.Fatalf("%+v, %v", kept, err)
		}
	})
}

// TestKeysExpire checks that a key may be used for another call after a day, whether or not
// its row was deleted.
func TestKeysExpire(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s, p := newStore(t, db), user()
		testkit.Must(t, begun(t, s, request(p, "k", "a")).Keep(t.Context(), Answer{Status: 200}))
		age := func(by time.Duration) {
			t.Helper()
			if err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
				_, err := tx.Exec(t.Context(), `UPDATE idempotency_keys SET created_at = $1`, tx.Now.Add(-by))
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		age(Retention - time.Minute)
		_ = refused(t, s, request(p, "k", "b"), stoa.IdempotencyConflict)
		age(Retention + time.Second)
		begun(t, s, request(p, "k", "b"))
		age(Retention + time.Second)
		if n, err := db.DeleteExpired(t.Context(), []masterdb.Expiry{Expiry()}); err != nil || n["idempotency_keys"] != 1 {
			t.Errorf("%v, %v", n, err)
		}
	})
}

// TestOneOfManyBegins checks that of many calls at the same time one is carried out.
func TestOneOfManyBegins(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s, p := newStore(t, db), user()
		var wg sync.WaitGroup
		results := make(chan error, 20)
		for range cap(results) {
			wg.Go(func() {
				_, kept, err := s.Begin(context.WithoutCancel(t.Context()), request(p, "k", "a"))
				if kept != nil {
					t.Errorf("%+v", kept)
				}
				results <- err
			})
		}
		wg.Wait()
		close(results)
		begun := 0
		for err := range results {
			if err == nil {
				begun++
			} else if stoa.CodeOf(err) != stoa.IdempotencyInProgress {
				t.Error(err)
			}
		}
		if begun != 1 {
			t.Errorf("%d calls were carried out", begun)
		}
	})
}

func TestKeysOfOneCallerAreLimited(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s, p := newStore(t, db), user()
		begun(t, s, request(p, "first", "a"))
		if err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			for i := range maxKeys - 1 {
				if _, err := tx.Exec(t.Context(), `INSERT INTO idempotency_keys (id, caller, key_hash, sealed, created_at) VALUES ($1, $2, $3, '', $4)`,
					stoa.NewID[keyID](), callerName(p), string(rune('a'+i%26))+stoa.NewID[keyID]().String(), tx.Now); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if e := refused(t, s, request(p, "next", "a"), stoa.RateLimited); e.RetryAfter <= 0 {
			t.Errorf("retry after %v", e.RetryAfter)
		}
		_ = refused(t, s, request(p, "first", "a"), stoa.IdempotencyInProgress) // earlier keys hold
		begun(t, s, request(user(), "next", "a"))
	})
}

func TestCheckKey(t *testing.T) {
	t.Parallel()
	for key, valid := range map[string]bool{"a": true, strings.Repeat("x", 255): true, strings.Repeat("x", 256): false, "é": false, "a\x00": false, "a b": true} {
		var faults stoa.Invalid
		CheckKey(&faults, "Idempotency-Key", key)
		if (faults.Err() == nil) != valid {
			t.Errorf("%.20q: %v", key, faults.Err())
		}
	}
}
