package archive

import (
	"fmt"
	"strings"

	"filippo.io/age"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
)

// maxRecipients limits the recipients of the operator: each costs a key exchange for each
// archive.
const maxRecipients = 8

// StoreKey is the key of one store's archives.
type StoreKey struct{ identity *age.X25519Identity }

// NewStoreKey makes a key.
func NewStoreKey() (StoreKey, error) {
	identity, err := age.GenerateX25519Identity()
	return StoreKey{identity}, err
}

// Seal encrypts the key for the master database. Only the same store can open it.
func (k StoreKey) Seal(ring *keyring.Ring, store stoa.StoreID) (string, error) {
	return ring.Seal([]byte(k.identity.String()), KeyOwner(store.String()))
}

// OpenStoreKey decrypts a key that Seal has encrypted. Its errors are those of keyring.Ring.
func OpenStoreKey(ring *keyring.Ring, store stoa.StoreID, sealed string) (StoreKey, error) {
	text, err := ring.Open(sealed, KeyOwner(store.String()))
	if err != nil {
		return StoreKey{}, fmt.Errorf("the key of the archives of the store %s: %w", store, err)
	}
	identity, err := age.ParseX25519Identity(string(text))
	if err != nil { // its text would contain the key
		return StoreKey{}, fmt.Errorf("the key of the archives of the store %s: %w", store, keyring.ErrTampered)
	}
	return StoreKey{identity}, nil
}

// KeyOwner returns the owner to which the sealed key of a store is bound.
func KeyOwner(store string) string { return "archive-key/" + store }

// Identity returns the key that opens archives.
func (k StoreKey) Identity() age.Identity { return k.identity }

// Recipients returns the recipients of a new archive: the store and the operator's.
func (k StoreKey) Recipients(operator []age.Recipient) []age.Recipient {
	return append([]age.Recipient{k.identity.Recipient()}, operator...)
}

// String hides the key.
func (k StoreKey) String() string { return "[redacted]" }

// GoString hides the key.
func (k StoreKey) GoString() string { return k.String() }

// ParseRecipients reads the operator's recipients: public keys such as age1…, separated by
// commas or spaces. Archives can be opened with the identity of each of them too, which the
// operator keeps elsewhere, in case the keyring is lost.
func ParseRecipients(text string) ([]age.Recipient, error) {
	var list []age.Recipient
	seen := map[string]bool{}
	for i, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' || r == '\t' }) {
		if strings.HasPrefix(strings.ToUpper(word), "AGE-SECRET-KEY-") {
			return nil, fmt.Errorf("recipient %d is a secret key. Keep it elsewhere, and give its public key here (age-keygen -y)", i+1)
		}
		recipient, err := age.ParseX25519Recipient(word)
		if err != nil {
			return nil, fmt.Errorf("recipient %d is no public key such as age1…, as age-keygen prints it", i+1)
		}
		if !seen[recipient.String()] {
			seen[recipient.String()] = true
			list = append(list, recipient)
		}
		if len(list) > maxRecipients {
			return nil, fmt.Errorf("there are more than %d recipients", maxRecipients)
		}
	}
	return list, nil
}

// ParseIdentity reads an operator's secret key.
func ParseIdentity(secret keyring.Secret) (age.Identity, error) {
	identity, err := age.ParseX25519Identity(strings.TrimSpace(secret.Reveal()))
	if err != nil { // its text would contain the key
		return nil, stoa.Errorf(stoa.InvalidRequest, "The identity is no secret key such as AGE-SECRET-KEY-1…, as age-keygen prints it.")
	}
	return identity, nil
}
