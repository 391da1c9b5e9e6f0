package link

import (
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/testkit"
)

func (b fixture) revocations(t *testing.T) (n int) {
	t.Helper()
	testkit.Must(t, b.db.Get(t.Context(), &n, `SELECT count(*) FROM supabase_revocations`))
	return n
}

// TestEndedConnectionsAreRevoked checks that the tokens of a connection that ends, with its
// user, its store or by itself, are revoked at Supabase, also when Supabase fails at first,
// and that the failure holds nothing up.
func TestEndedConnectionsAreRevoked(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		forgotten, _ := b.connected(t)
		testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return ForgetUser(t.Context(), tx, forgotten) }))
		_, deleted := b.connected(t)
		testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return Destroy(t.Context(), tx, deleted) }))
		p, left := b.connected(t)
		down := supabasetest.Broken
		b.sb.Break("POST /v1/oauth/revoke", down)
		testkit.Must(t, b.Disconnect(t.Context(), p, left))
		if n, at := b.revocations(t), b.sb.Grants(); n != 3 || at != 3 {
			t.Fatalf("%d revocations wait, %d consents are in force", n, at)
		}

		b.sb.Break("POST /v1/oauth/revoke", down, down)
		testkit.Must(t, b.RunRevocations(t.Context(), RevokeTokens{}))
		if n, at := b.revocations(t), b.sb.Grants(); n != 2 || at != 2 {
			t.Errorf("after a run with two failures %d revocations wait, %d consents are in force", n, at)
		}
		testkit.Must(t, b.RunRevocations(t.Context(), RevokeTokens{}))
		if n := b.revocations(t); n != 2 {
			t.Errorf("a failed revocation is repeated without a pause: %d wait", n)
		}
		b.exec(t, `UPDATE supabase_revocations SET next_at = $1`, time.Now().UTC().Add(-time.Minute))
		testkit.Must(t, b.RunRevocations(t.Context(), RevokeTokens{}))
		if n, at := b.revocations(t), b.sb.Grants(); n != 0 || at != 0 {
			t.Errorf("at the end %d revocations wait, %d consents are in force", n, at)
		}
	})
}

// TestRevocationsEnd checks that tokens which Supabase does not accept any more are revoked,
// and that tokens which cannot be revoked are kept for a limited time.
func TestRevocationsEnd(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		_, store := b.connected(t)
		testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return Destroy(t.Context(), tx, store) }))
		b.sb.RevokeAll()
		testkit.Must(t, b.RunRevocations(t.Context(), RevokeTokens{}))
		if n := b.revocations(t); n != 0 {
			t.Errorf("%d revocations wait for tokens that are of no more use", n)
		}
		_, store = b.connected(t)
		testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return Destroy(t.Context(), tx, store) }))
		b.exec(t, `UPDATE supabase_revocations SET created_at = $1, next_at = $2`,
			time.Now().UTC().Add(-revokeFor-time.Hour), time.Now().UTC().Add(time.Hour))
		testkit.Must(t, b.RunRevocations(t.Context(), RevokeTokens{}))
		if n := b.revocations(t); n != 0 {
			t.Errorf("%d revocations are repeated for ever", n)
		}
	})
}
