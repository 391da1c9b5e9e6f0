package keyring

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"unique"
)

const redacted = "[redacted]"

// Secret is a string that cannot be printed, logged or marshalled by accident: the
// result is "[redacted]", or an address where fmt ignores methods. Only Reveal
// returns the value, so that a review can search for its uses.
type Secret struct {
	// A handle contains a pointer. fmt calls no method on a Secret in an unexported
	// field of another struct, nor for %p, and prints its contents instead, which
	// is the address of the pointer. Equal secrets are equal.
	value unique.Handle[string]
}

// NewSecret wraps a value. An empty one is the zero Secret.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{unique.Make(value)}
}

// Reveal returns the value. Call it only where the value is passed to its
// destination: a driver, a cipher, an HTTP header.
func (s Secret) Reveal() string {
	if s == (Secret{}) { // Value panics on a zero handle
		return ""
	}
	return s.value.Value()
}

// Hash returns the SHA-256 of the value in hexadecimal, the form in which a token
// is stored. A token is random, so that a hash without salt and cost suffices.
func (s Secret) Hash() string {
	sum := sha256.Sum256([]byte(s.Reveal()))
	return hex.EncodeToString(sum[:])
}

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

func (s Secret) String() string { return redacted }

// GoString redacts the value in %#v.
func (s Secret) GoString() string { return redacted }

// Format redacts the value for every verb, %x and %d included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue redacts the value in slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText redacts the value in JSON, YAML and every other encoding.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalText decodes a Secret directly from a request or a configuration, so
// that the plain string is stored nowhere else.
func (s *Secret) UnmarshalText(b []byte) error {
	*s = NewSecret(string(b))
	return nil
}

// UnmarshalJSON accepts a JSON string, and null as an empty one.
func (s *Secret) UnmarshalJSON(b []byte) error {
	var value string
	if err := json.Unmarshal(b, &value); err != nil {
		return err
	}
	*s = NewSecret(value)
	return nil
}
