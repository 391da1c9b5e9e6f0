package keyring

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"unique"
)

const redacted = "[redacted]"

// Secret is a string that cannot be printed, logged or marshalled by
// accident: every such path gives "[redacted]", or an address where fmt
// ignores methods. Reveal is the one way to its value, and the word to look
// for in a review.
type Secret struct {
	// A handle holds a pointer, and that matters: fmt calls no method on a Secret
	// in an unexported field of another struct, nor for %p. It prints what is
	// inside, and of a pointer it prints the address. Equal secrets stay equal.
	value unique.Handle[string]
}

// NewSecret wraps a value. An empty one is the zero Secret.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{unique.Make(value)}
}

// Reveal returns the value. Call it only where the value leaves for its
// destination: a driver, a cipher, an HTTP header.
func (s Secret) Reveal() string {
	if s == (Secret{}) { // a zero handle has no value
		return ""
	}
	return s.value.Value()
}

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

func (s Secret) String() string { return redacted }

// GoString redacts in %#v.
func (s Secret) GoString() string { return redacted }

// Format covers every verb, %x and %d included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue redacts in slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText redacts in JSON, YAML and every other encoding.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalText lets a Secret be decoded straight from a request or from
// configuration, so that the plain string never has another home.
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
