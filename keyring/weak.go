package keyring

import (
	"crypto/subtle"
	"fmt"
)

// Weak returns an error that names a key which no generator has drawn: bytes
// that repeat or count, too few different ones, or a text that somebody typed.
// Of all keys that are drawn by chance it finds fault with less than one in a
// million million.
func (r *Ring) Weak() error {
	for _, id := range r.ids {
		if fault := weakness(r.keys[id]); fault != "" {
			return fmt.Errorf("key %q %s", id, fault)
		}
	}
	return nil
}

// weakness says what is wrong with a key of KeySize bytes.
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

// Shares reports whether the rings have a key in common, under whatever ids.
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
