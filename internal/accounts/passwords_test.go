package accounts

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/passwordhash"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestHashInProduction(t *testing.T) {
	t.Parallel()
	a := New(nil, nil, testRing(t), Options{})
	secret := keyring.NewSecret(goodPassword)
	hash, err := a.passwords.hash(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("hash %s is not at the recommended cost", hash)
	}
	if p := argon2Of(t, hash); len(p.Salt) != 16 || len(p.Key) != 32 {
		t.Errorf("salt of %d bytes, key of %d", len(p.Salt), len(p.Key))
	}
	match, outdated, err := a.passwords.verify(t.Context(), hash, secret)
	if !match || outdated || err != nil {
		t.Errorf("verify: match %v, outdated %v, error %v", match, outdated, err)
	}
}

func TestHashIsSalted(t *testing.T) {
	t.Parallel()
	h := newHasher(testCost)
	first, err1 := h.hash(t.Context(), keyring.NewSecret(goodPassword))
	second, err2 := h.hash(t.Context(), keyring.NewSecret(goodPassword))
	if err := errors.Join(err1, err2); err != nil || first == second {
		t.Errorf("two hashes of one password: %s, %s, error %v", first, second, err)
	}
}

// TestVerifyReferenceHash uses a vector of the reference implementation:
// phc-winner-argon2, src/test.c.
func TestVerifyReferenceHash(t *testing.T) {
	t.Parallel()
	const reference = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	h := newHasher(testCost)
	match, outdated, err := h.verify(t.Context(), reference, keyring.NewSecret("password"))
	if !match || !outdated || err != nil {
		t.Errorf("match %v, outdated %v, error %v", match, outdated, err)
	}
	match, _, err = h.verify(t.Context(), reference, keyring.NewSecret("passwore"))
	if match || err != nil {
		t.Errorf("another password: match %v, error %v", match, err)
	}
}

// argon2Of reads one of the platform's own hashes.
func argon2Of(t *testing.T, stored string) passwordhash.Argon2 {
	t.Helper()
	h, err := passwordhash.Parse(stored)
	testkit.Must(t, err)
	return h.(passwordhash.Argon2)
}

// TestVerifyForeignHash checks that a hash of another system is outdated, and that no
// input matches a hash of the empty password.
func TestVerifyForeignHash(t *testing.T) {
	t.Parallel()
	h := newHasher(testCost)
	match, outdated, err := h.verify(t.Context(), "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", keyring.NewSecret("U*U"))
	if !match || !outdated || err != nil {
		t.Errorf("match %v, outdated %v, error %v", match, outdated, err)
	}
	const empty = "$2a$06$DCq7YPn5Rq63x1Lad4clluBORuy3SarWA4T.X1UiAKqda9MdcTpna"
	for _, input := range []string{"", strings.Repeat("x", maxPasswordBytes+1)} {
		if match, _, err := h.verify(t.Context(), empty, keyring.NewSecret(input)); match || err != nil {
			t.Errorf("%d bytes: match %v, error %v", len(input), match, err)
		}
	}
	if _, _, err := h.verify(t.Context(), "plain text", keyring.NewSecret("plain text")); !errors.Is(err, passwordhash.ErrFormat) {
		t.Errorf("%v, want %v", err, passwordhash.ErrFormat)
	}
}

func TestHashWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	h := newHasher(testCost)
	for range cap(h.slots) {
		h.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := h.hash(ctx, keyring.NewSecret(goodPassword))
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	<-h.slots
	if _, err := h.hash(t.Context(), keyring.NewSecret(goodPassword)); err != nil {
		t.Errorf("with a free slot: %v", err)
	}
	if got, want := len(h.slots), cap(h.slots)-1; got != want {
		t.Errorf("%d slots are taken after the hash, want %d", got, want)
	}
}
