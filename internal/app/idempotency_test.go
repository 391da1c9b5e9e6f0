package app_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/idempotency"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

const replayed = "Idempotency-Replayed"

// isReplay fails the test unless b is a replay of a.
func isReplay(t *testing.T, a, b answer) {
	t.Helper()
	if a.header.Get(replayed) != "" || b.header.Get(replayed) != "true" || a.status != b.status || a.raw != b.raw ||
		a.header.Get("Location") != b.header.Get("Location") || a.header.Get("ETag") != b.header.Get("ETag") ||
		a.header.Get("Content-Type") != b.header.Get("Content-Type") || a.header.Get("X-Request-Id") == b.header.Get("X-Request-Id") {
		t.Errorf("first %d %s %v\nthen %d %s %v", a.status, a.raw, a.header, b.status, b.raw, b.header)
	}
}

// TestIdempotencyKeys checks that a repeated call with a key does nothing and gets the first
// answer whole.
func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		owner, id := register(t, s, "owner@example.com")
		owner.proven()
		twice := func(path string, body any, key string) answer {
			t.Helper()
			first := owner.call("POST", path, body, "Idempotency-Key", key)
			isReplay(t, first, owner.call("POST", path, body, "Idempotency-Key", key))
			return first
		}

		made := twice("/api/stores", object{"name": "Second"}, "store").want(http.StatusCreated)
		if made.header.Get("Location") == "" {
			t.Error("no Location")
		}
		owner.call("GET", "/api/stores", nil).want(http.StatusOK).count(t, 2)
		owner.call("POST", "/api/stores", object{"name": "Third"}, "Idempotency-Key", "store").problem(http.StatusConflict, "idempotency_conflict")
		owner.call("POST", "/api/stores/create", object{"name": "Second"}, "Idempotency-Key", "store").problem(http.StatusConflict, "idempotency_conflict")

		// An answer with a secret is given again, and stored encrypted.
		keys := "/api/stores/" + id + "/api-keys"
		secret := twice(keys, object{"name": "Warehouse", "scopes": []string{"store:read"}}, "key").want(http.StatusCreated).text("key")
		owner.call("GET", keys, nil).want(http.StatusOK).count(t, 1)
		for _, cell := range dump(t, s.Master) {
			if strings.Contains(cell.Value, secret) {
				t.Errorf("%s.%s holds the API key", cell.Table, cell.Column)
			}
		}

		// Answers without a body, and refusals of the domain.
		twice("/api/stores/"+id+"/connect-database", object{"type": "managed"}, "database").want(http.StatusOK)
		twice("/api/stores/"+id+"/connect-database", object{"type": "managed"}, "again").problem(http.StatusConflict, "already_connected")
		twice("/api/stores/"+id+"/suspend", nil, "suspend").want(http.StatusOK)
		owner.call("POST", "/api/stores/"+id+"/resume", nil, "Idempotency-Key", "suspend").problem(http.StatusConflict, "idempotency_conflict")

		// A call that was refused before it began leaves the key free.
		owner.call("POST", "/api/stores", object{"name": 1}, "Idempotency-Key", "free").problem(http.StatusUnprocessableEntity, "invalid_request")
		owner.call("POST", "/api/stores", "{", "Idempotency-Key", "free").problem(http.StatusBadRequest, "invalid_request")
		owner.call("POST", "/api/stores", strings.Repeat(" ", 1<<20)+"{}", "Idempotency-Key", "free").problem(http.StatusRequestEntityTooLarge, "payload_too_large")
		twice("/api/stores", object{"name": "Fourth"}, "free").want(http.StatusCreated)

		purchase := owner.call("POST", "/api/credits/purchase", object{"credits": 100}, "X-Store-Id", id, "Idempotency-Key", "buy").want(http.StatusCreated)
		bought := owner.call("GET", purchase.header.Get("Location"), nil, "X-Store-Id", id).want(http.StatusOK)
		bought.is(purchase.text("id"), "id")

		// Keys that are none.
		for _, key := range []string{strings.Repeat("x", 256), "é"} {
			owner.call("POST", "/api/stores", object{"name": "Fifth"}, "Idempotency-Key", key).problem(http.StatusUnprocessableEntity, "invalid_request")
			owner.call("POST", "/api/credits/spend", object{"amount": "1"}, "Idempotency-Key", key).problem(http.StatusUnprocessableEntity, "invalid_request")
		}

		// The keys of others are others.
		other, _ := register(t, s, "other@example.com")
		if a := other.call("POST", "/api/stores", object{"name": "Second"}, "Idempotency-Key", "store").want(http.StatusCreated); a.text("id") == made.text("id") {
			t.Error("a key gave another user's store")
		}
		program := owner.withKey(id, authz.Scopes()...)
		program.call("POST", "/api/stores/"+id+"/hostnames", object{"hostname": "www.example.com"}, "Idempotency-Key", "suspend").want(http.StatusCreated)
	})
}

// replayed fails the test unless the answer is one of an earlier call.
func (a answer) replayed() {
	a.t.Helper()
	if a.header.Get(replayed) != "true" {
		a.t.Errorf("not given again: %s, %v", a.raw, a.header)
	}
}

func (a answer) count(t *testing.T, want int) {
	t.Helper()
	if n := len(a.list("data")); n != want {
		t.Errorf("%d, want %d: %s", n, want, a.raw)
	}
}

// TestIdempotencyKeysAtTheSameTime checks that of many calls with one key at the same time
// one is carried out, and all get its answer in the end.
func TestIdempotencyKeysAtTheSameTime(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		owner, id := register(t, s, "owner@example.com")
		owner.proven()
		keys := "/api/stores/" + id + "/api-keys"
		create := func() answer {
			return owner.call("POST", keys, object{"name": "Warehouse", "scopes": []string{"store:read"}}, "Idempotency-Key", "k")
		}
		var wg sync.WaitGroup
		answers := make(chan answer, 12)
		for range cap(answers) {
			wg.Go(func() { answers <- create() })
		}
		wg.Wait()
		close(answers)
		end := create().want(http.StatusCreated)
		for a := range answers {
			switch {
			case a.status == http.StatusConflict:
				a.problem(http.StatusConflict, "idempotency_in_progress")
				if a.header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
			case a.want(http.StatusCreated).raw != end.raw:
				t.Errorf("%s, then %s", a.raw, end.raw)
			}
		}
		owner.call("GET", keys, nil).want(http.StatusOK).count(t, 1)
	})
}

// TestIdempotencyKeyAfterItsTime checks that a key of a store makes one store, even when the
// answer is kept no longer.
func TestIdempotencyKeyAfterItsTime(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		owner, _ := register(t, s, "owner@example.com")
		create := func() answer {
			return owner.call("POST", "/api/stores", object{"name": "Second"}, "Idempotency-Key", "k").want(http.StatusCreated)
		}
		first := create()
		testkit.Must(t, s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
			_, err := tx.Exec(t.Context(), `UPDATE idempotency_keys SET created_at = $1`, tx.Now.Add(-idempotency.Retention-time.Second))
			return err
		}))
		again := create()
		if again.text("id") != first.text("id") || again.header.Get(replayed) != "" {
			t.Errorf("%s, %v", again.raw, again.header)
		}
		isReplay(t, again, create())
	})
}
