package archive

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/testkit"
)

func newRing(t *testing.T, keys ...keyring.Secret) *keyring.Ring {
	t.Helper()
	var specs []string
	for _, k := range keys {
		specs = append(specs, k.Reveal())
	}
	ring, err := keyring.Parse(keyring.NewSecret(strings.Join(specs, ",")))
	testkit.Must(t, err)
	return ring
}

func TestStoreKeyIsSealedForItsStore(t *testing.T) {
	t.Parallel()
	first, second := keyring.Generate("1"), keyring.Generate("2")
	ring := newRing(t, first)
	store := stoa.NewID[stoa.StoreID]()
	key, err := NewStoreKey()
	testkit.Must(t, err)
	secret := key.identity.String()
	sealed, err := key.Seal(ring, store)
	testkit.Must(t, err)
	for _, text := range []string{sealed, fmt.Sprint(key), fmt.Sprintf("%v %+v %#v %s", key, key, key, key)} {
		if strings.Contains(text, secret) {
			t.Errorf("%.40s… shows the key", text)
		}
	}
	opened, err := OpenStoreKey(newRing(t, second, first), store, sealed)
	testkit.Must(t, err)
	file, _, _ := sample(t, sampleHead(), key.Recipients(nil)...)
	_, _, _, err = readAll(bytes.NewReader(file), ReadOptions{}, opened.Identity())
	testkit.Must(t, err)
	if _, err := OpenStoreKey(ring, stoa.NewID[stoa.StoreID](), sealed); !errors.Is(err, keyring.ErrTampered) {
		t.Errorf("another store: %v", err)
	}
	if _, err := OpenStoreKey(newRing(t, second), store, sealed); !errors.Is(err, keyring.ErrUnknownKey) {
		t.Errorf("without its key: %v", err)
	}
	other, err := ring.Seal([]byte("x"), KeyOwner(store.String()))
	testkit.Must(t, err)
	if _, err := OpenStoreKey(ring, store, other); !errors.Is(err, keyring.ErrTampered) {
		t.Errorf("no key in it: %v", err)
	}
}

// TestOperatorOpensArchives checks that archives outlive the keyring.
func TestOperatorOpensArchives(t *testing.T) {
	t.Parallel()
	operator := newIdentity(t)
	recipients, err := ParseRecipients(" " + operator.Recipient().String() + ",\n" + operator.Recipient().String() + " , ")
	testkit.Must(t, err)
	if len(recipients) != 1 {
		t.Errorf("%d recipients", len(recipients))
	}
	key, err := NewStoreKey()
	testkit.Must(t, err)
	file, _, _ := sample(t, sampleHead(), key.Recipients(recipients)...)
	identity, err := ParseIdentity(keyring.NewSecret(operator.String() + "\n"))
	testkit.Must(t, err)
	_, _, _, err = readAll(bytes.NewReader(file), ReadOptions{}, identity)
	testkit.Must(t, err)
}

func TestParseRecipientsFaults(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	many := ""
	for range maxRecipients + 1 {
		many += newIdentity(t).Recipient().String() + " "
	}
	for text, words := range map[string]string{
		id.String():                      "secret key",
		strings.ToLower(id.String()):     "secret key",
		"age1":                           "no public key",
		id.Recipient().String()[:20]:     "no public key",
		"ssh-ed25519 AAAA":               "no public key",
		id.Recipient().String() + ",abc": "recipient 2",
		many:                             "more than",
	} {
		_, err := ParseRecipients(text)
		if err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), id.String()[20:]) {
			t.Errorf("%.20s…: %v, want %q", text, err, words)
		}
	}
	if list, err := ParseRecipients(""); err != nil || list != nil {
		t.Errorf("no text: %v, %v", list, err)
	}
	_, err := ParseIdentity(keyring.NewSecret(id.String() + "x"))
	wantMessage(t, err, stoa.InvalidRequest)
	if strings.Contains(err.Error(), id.String()[20:]) {
		t.Error("the error shows the key")
	}
}
