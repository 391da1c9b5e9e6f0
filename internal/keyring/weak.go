package keyring

import (
	"crypto/subtle"
	"fmt"
)

// Weak returns an error that names a key that is not random: bytes that repeat or
// count, too few different bytes, or a typed text. It rejects less than one in a
// million million random keys.
func (r *Ring) Weak() error {
	for _, id := range r.ids {
		if fault := weakness(r.keys[id]); fault != "" {
			return fmt.Errorf("key %q %s", id, fault)
		}
	}
	return nil
}

// weakness returns why a key of KeySize bytes is weak, or "".
func weakness(key []byte) string {
	distinct, typed, steady := map[byte]bool{}, true, true
	for i, b := range key {
		distinct[b] = true
		typed = typed && b >= ' ' && b <= '~'
		steady = steady && (i == 0 || b-key[i-1] == key[1]-key[0])
	}
	switch {
	case typed:
		return "is a text, not random bytes"
	case steady:
		return "repeats or counts"
	case len(distinct) < 16:
		return fmt.Sprintf("has only %d different bytes", len(distinct))
	}
	return ""
}

// Shares reports whether the rings have a key in common, whatever its ids.
func (r *Ring) Shares(other *Ring) bool {
	for _, a := range r.keys {
		for _, b := range other.keys {
			if subtle.ConstantTimeCompare(a, b) == 1 {
				return true
			}
		}
	}
	return false
}
