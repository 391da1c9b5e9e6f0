package accounts

import (
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// refresh uses a refresh token and returns the next one.
func refresh(t *testing.T, a *Accounts, token keyring.Secret) keyring.Secret {
	t.Helper()
	s, err := a.Refresh(t.Context(), token, Client{})
	if err != nil {
		t.Fatal(err)
	}
	principal(t, a, s)
	return s.RefreshToken
}

// endGrace lets the grace of every spent token pass.
func endGrace(t *testing.T, db *masterdb.DB) {
	t.Helper()
	exec(t, db, `UPDATE refresh_tokens SET spent_at = $1 WHERE spent_at IS NOT NULL`, time.Now().UTC().Add(-refreshGrace-time.Second))
}

// wantOneUnspent checks that the only refresh token that is not spent is the given one.
func wantOneUnspent(t *testing.T, db *masterdb.DB, want keyring.Secret) {
	t.Helper()
	var got []string
	if err := db.Select(t.Context(), &got, `SELECT hash FROM refresh_tokens WHERE spent_at IS NULL`); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0] != want.Hash() {
		t.Errorf("unspent tokens %v, want only %s", got, want.Hash())
	}
}

// TestRefreshInGraceGivesOneToken checks that each use of a token within its grace, on any
// replica, gives the one token that is not spent.
func TestRefreshInGraceGivesOneToken(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		ring := testRing(t)
		a, elsewhere := setup(t, db, ring), setup(t, db, ring)
		first := register(t, a).RefreshToken
		second := refresh(t, a, first)
		if again := refresh(t, elsewhere, first); again != second {
			t.Error("a re-use gave another token")
		}
		third := refresh(t, elsewhere, second)
		for name, token := range map[string]keyring.Secret{"first": first, "second": second} {
			if again := refresh(t, a, token); again != third {
				t.Errorf("a re-use of the %s token did not give the newest", name)
			}
		}
		wantOneUnspent(t, db, third)
		wantAudited(t, db, audit.TokenReused, audit.Denied, 0)
	})
}

// TestStolenRefreshTokenEndsSession checks that two parties that got past one use of a token
// within its grace are found by the next: neither has a chain of its own.
func TestStolenRefreshTokenEndsSession(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		first := register(t, a).RefreshToken
		owners, thiefs := refresh(t, a, first), refresh(t, a, first)
		endGrace(t, db)
		kept := refresh(t, a, thiefs)
		endGrace(t, db)
		for _, token := range []keyring.Secret{owners, kept} {
			_, err := a.Refresh(t.Context(), token, Client{})
			wantCode(t, err, stoa.SessionRevoked)
		}
		wantAudited(t, db, audit.TokenReused, audit.Denied, 1)
	})
}

// TestRefreshInGraceAfterManyRefreshes re-uses a token that has more successors than are
// followed: the one that it gets can be used within its own grace.
func TestRefreshInGraceAfterManyRefreshes(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		first := register(t, a).RefreshToken
		newest := first
		for range maxSuccessors + 2 {
			newest = refresh(t, a, newest)
		}
		if got := refresh(t, a, refresh(t, a, first)); got != newest {
			t.Error("the second re-use did not reach the newest token")
		}
		wantOneUnspent(t, db, newest)
	})
}

// TestRefreshInGraceWhileKeysRotate checks a re-use on a replica with another current key.
func TestRefreshInGraceWhileKeysRotate(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		old, fresh := keyring.Generate("old"), keyring.Generate("fresh")
		before, after := setup(t, db, testRing(t, old, fresh)), setup(t, db, testRing(t, fresh, old))
		first := register(t, before).RefreshToken
		second := refresh(t, before, first)
		if refresh(t, after, first) != second {
			t.Error("a re-use under the fresh key gave another token")
		}
		third := refresh(t, after, second)
		if refresh(t, before, first) != third {
			t.Error("a re-use under the old key did not give the newest token")
		}
		wantOneUnspent(t, db, third)
	})
}

// TestRefreshInGraceWithoutSuccessor re-uses a token whose successor cannot be derived: its
// key was removed, or the release before made it at random. The session has one chain then,
// too, and a use of the other successor ends it.
func TestRefreshInGraceWithoutSuccessor(t *testing.T) {
	t.Parallel()
	for name, firstUse := range map[string]func(t *testing.T, a *Accounts, db *masterdb.DB, token keyring.Secret) keyring.Secret{
		"key removed": func(t *testing.T, a *Accounts, _ *masterdb.DB, token keyring.Secret) keyring.Secret {
			t.Helper()
			return refresh(t, a, token)
		},
		"random": func(t *testing.T, _ *Accounts, db *masterdb.DB, token keyring.Secret) keyring.Secret {
			t.Helper()
			next := newRefreshToken()
			now := time.Now().UTC()
			exec(t, db, `INSERT INTO refresh_tokens (hash, session_id, created_at) SELECT $1, id, $2 FROM sessions`, next.Hash(), now)
			exec(t, db, `UPDATE refresh_tokens SET spent_at = $1 WHERE hash = $2`, now, token.Hash())
			return next
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
				before, a := setup(t, db, testRing(t)), setup(t, db, testRing(t))
				first := register(t, before).RefreshToken
				lost := firstUse(t, before, db, first)
				second := refresh(t, a, first)
				if refresh(t, a, first) != second {
					t.Error("a further re-use gave another token")
				}
				wantOneUnspent(t, db, second)
				endGrace(t, db)
				third := refresh(t, a, second)
				_, err := a.Refresh(t.Context(), lost, Client{})
				wantCode(t, err, stoa.SessionRevoked)
				_, err = a.Refresh(t.Context(), third, Client{})
				wantCode(t, err, stoa.SessionRevoked)
				wantAudited(t, db, audit.TokenReused, audit.Denied, 1)
			})
		})
	}
}

// TestSuccessorNeedsKeyAndToken checks that a successor is a refresh token that neither the
// token nor the key alone gives.
func TestSuccessorNeedsKeyAndToken(t *testing.T) {
	t.Parallel()
	token := newRefreshToken()
	_, key := testRing(t).Current()
	_, other := testRing(t).Current()
	next := successorOf(token, key)
	if !isRefreshToken(next) {
		t.Error("not in the form of a refresh token")
	}
	if next != successorOf(token, key) {
		t.Error("derived twice, it differs")
	}
	if next == successorOf(token, other) || next == successorOf(newRefreshToken(), key) || next == successorOf(token, nil) {
		t.Error("another key or token gives the same one")
	}
}
