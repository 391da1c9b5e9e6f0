// Package keyring encrypts secrets in the master database and holds the keys that
// sign access tokens. Keys have ids, so that a new key can be introduced while the
// old one still decrypts.
package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// KeySize is the length of every key in bytes: AES-256 and HMAC-SHA-256.
const KeySize = 32

// ErrUnknownKey reports that a value was encrypted or signed with a key that is
// not configured.
var ErrUnknownKey = errors.New("keyring: encrypted with a key that is not configured")

// ErrTampered reports that a value does not decrypt: it was changed, or it belongs
// to another owner.
var ErrTampered = errors.New("keyring: value does not authenticate")

var idPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// Ring is an ordered set of keys. The first is the current one: it signs and
// encrypts. The others only verify and decrypt.
type Ring struct {
	ids  []string
	keys map[string][]byte
}

// Parse parses "id:base64,id:base64"; a base64 key without id has id "1".
func Parse(spec Secret) (*Ring, error) {
	r := &Ring{keys: map[string][]byte{}}
	for _, part := range strings.Split(spec.Reveal(), ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		id, encoded, ok := strings.Cut(part, ":")
		if !ok {
			id, encoded = "1", part
		}
		if !idPattern.MatchString(id) {
			return nil, fmt.Errorf("key id must be 1 to 32 letters, digits, '-' or '_'")
		}
		if _, dup := r.keys[id]; dup {
			return nil, fmt.Errorf("key id %q appears twice", id)
		}
		key, err := decodeKey(encoded)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", id, err)
		}
		r.ids = append(r.ids, id)
		r.keys[id] = key
	}
	if len(r.ids) == 0 {
		return nil, errors.New("no key given; make one with 'stoa keys generate'")
	}
	return r, nil
}

// decodeKey accepts standard and URL-safe base64, padded or not. Its errors do not
// contain the input, which is a key.
func decodeKey(s string) ([]byte, error) {
	s = strings.TrimRight(s, "=")
	s = strings.NewReplacer("-", "+", "_", "/").Replace(s)
	key, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil {
		return nil, errors.New("not valid base64")
	}
	if len(key) != KeySize {
		return nil, fmt.Errorf("is %d bytes long, must be %d; make one with 'stoa keys generate'", len(key), KeySize)
	}
	return key, nil
}

// Generate returns a new key in the form that Parse accepts.
func Generate(id string) Secret {
	key := make([]byte, KeySize)
	_, _ = rand.Read(key) // never fails: see crypto/rand
	return NewSecret(id + ":" + base64.StdEncoding.EncodeToString(key))
}

// Current returns the key that signs and encrypts, with its id.
func (r *Ring) Current() (id string, key []byte) { return r.ids[0], r.keys[r.ids[0]] }

// Key returns the key with that id, or ErrUnknownKey.
func (r *Ring) Key(id string) ([]byte, error) {
	key, ok := r.keys[id]
	if !ok {
		return nil, fmt.Errorf("%w (key id %q)", ErrUnknownKey, id)
	}
	return key, nil
}

// IDs lists the keys, the current one first.
func (r *Ring) IDs() []string { return slices.Clone(r.ids) }

// Seal encrypts plaintext with AES-256-GCM and binds it to owner: only Open
// with the same owner decrypts it. The result is printable:
// "v1.<key id>.<base64(nonce ‖ ciphertext)>".
func (r *Ring) Seal(plaintext []byte, owner string) (string, error) {
	id, key := r.Current()
	aead, err := newAEAD(key)
	if err != nil {
		return "", err
	}
	// A random 96-bit nonce is safe for 2^32 messages under one key
	// (NIST SP 800-38D, 8.3), far more than there are credentials.
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plaintext)+aead.Overhead())
	_, _ = rand.Read(nonce)
	sealed := aead.Seal(nonce, nonce, plaintext, additionalData(id, owner))
	return "v1." + id + "." + base64.RawURLEncoding.EncodeToString(sealed), nil
}

// KeyID returns the id of the key of an envelope that Seal returned, or "" for any other
// text.
func KeyID(envelope string) string {
	parts := strings.Split(envelope, ".")
	if len(parts) != 3 || parts[0] != "v1" {
		return ""
	}
	return parts[1]
}

// Open decrypts an envelope that Seal returned for the same owner. It fails with
// ErrUnknownKey when the key is not configured, and with ErrTampered when the
// envelope does not authenticate.
func (r *Ring) Open(envelope, owner string) ([]byte, error) {
	parts := strings.Split(envelope, ".")
	if len(parts) != 3 || parts[0] != "v1" {
		return nil, ErrTampered
	}
	key, err := r.Key(parts[1])
	if err != nil {
		return nil, err
	}
	sealed, err := base64.RawURLEncoding.DecodeString(parts[2])
	// Decoding ignores line breaks and unused bits. Only the form that Seal writes is
	// accepted.
	if err != nil || base64.RawURLEncoding.EncodeToString(sealed) != parts[2] {
		return nil, ErrTampered
	}
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	if len(sealed) < aead.NonceSize() {
		return nil, ErrTampered
	}
	nonce, ciphertext := sealed[:aead.NonceSize()], sealed[aead.NonceSize():]
	plaintext, err := aead.Open(nil, nonce, ciphertext, additionalData(parts[1], owner))
	if err != nil {
		return nil, ErrTampered
	}
	return plaintext, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// additionalData authenticates the key id and the owner, so that neither can be
// exchanged. Ids contain no '.', so the result is unambiguous.
func additionalData(id, owner string) []byte { return []byte("v1." + id + "." + owner) }
