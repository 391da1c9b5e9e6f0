package accounts

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/keyring"
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
	p, err := parsePHC(hash)
	if err != nil || len(p.salt) != 16 || len(p.key) != 32 {
		t.Errorf("salt of %d bytes, key of %d, error %v", len(p.salt), len(p.key), err)
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

func TestParsePHCFaults(t *testing.T) {
	t.Parallel()
	const tail = "$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	if _, err := parsePHC("$argon2id$v=19$m=256,t=2,p=1" + tail); err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string]string{
		"empty":           "",
		"bcrypt":          "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
		"argon2i":         "$argon2i$v=19$m=256,t=2,p=1" + tail,
		"old version":     "$argon2id$v=16$m=256,t=2,p=1" + tail,
		"prefix":          "x$argon2id$v=19$m=256,t=2,p=1" + tail,
		"order":           "$argon2id$v=19$t=2,m=256,p=1" + tail,
		"more parameters": "$argon2id$v=19$m=256,t=2,p=1,x=1" + tail,
		"too much memory": "$argon2id$v=19$m=1048576,t=2,p=1" + tail,
		"overflow":        "$argon2id$v=19$m=99999999999,t=2,p=1" + tail,
		"too many passes": "$argon2id$v=19$m=256,t=1000,p=1" + tail,
		"no passes":       "$argon2id$v=19$m=256,t=0,p=1" + tail,
		"no threads":      "$argon2id$v=19$m=256,t=2,p=0" + tail,
		"many threads":    "$argon2id$v=19$m=4096,t=2,p=255" + tail,
		"little memory":   "$argon2id$v=19$m=7,t=2,p=1" + tail,
		"no salt":         "$argon2id$v=19$m=256,t=2,p=1$$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"no key":          "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$",
		"short key":       "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EA",
		"not base64":      "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR*uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"huge key":        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$" + strings.Repeat("AAAA", 1000),
	} {
		if _, err := parsePHC(in); !errors.Is(err, errBadHash) {
			t.Errorf("%s: error %v, want %v", name, err, errBadHash)
		}
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
