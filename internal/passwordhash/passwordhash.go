// Package passwordhash reads stored hashes of passwords, of this platform and of others,
// and compares passwords with them. The formats are those in which the systems export
// them; see the types below.
package passwordhash

import (
	"encoding/base64"
	"errors"
	"strconv"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// ErrFormat means that a text is no hash of a known format. ErrCost means that to compare
// a password with the hash would take more memory or time than this package allows.
// Neither contains the hash.
var (
	ErrFormat = errors.New("is no password hash of a known format")
	ErrCost   = errors.New("is a password hash that costs more memory or time than is accepted")
)

// Hash is a stored hash with its parameters. To compare a password with it takes at most
// 128 MiB of memory and, on a slow core, a few seconds.
type Hash interface {
	matches(password []byte) bool
}

// maxHash is the length of the longest text that Parse reads, in bytes.
const maxHash = 1024

// The limits of salts and keys, in bytes.
const (
	maxSalt = 64
	minKey  = 16
	maxKey  = 64
)

// Parse reads a hash. It fails with ErrFormat and ErrCost.
func Parse(stored string) (Hash, error) {
	if len(stored) > maxHash {
		return nil, ErrFormat
	}
	for prefix, parse := range map[string]func(string) (Hash, error){
		"$argon2": parseArgon2, "$2": parseBcrypt, "pbkdf2": parsePBKDF2, "$pbkdf2": parsePBKDF2,
		"scrypt": parseScrypt, "$scrypt": parseScrypt, "$fbscrypt": parseFirebase,
		"argon2$": parseDjangoArgon2, "bcrypt$": parseDjangoBcrypt, "bcrypt_sha256$": parseDjangoBcryptSHA256,
	} {
		if strings.HasPrefix(stored, prefix) {
			return parse(stored)
		}
	}
	return nil, ErrFormat
}

// Matches reports whether a password is the one of the hash. An accented letter may be one
// code point or two: this platform hashes the normal form (NFC), other systems what was
// typed.
func Matches(h Hash, password string) bool {
	normal := norm.NFC.String(password)
	return h.matches([]byte(normal)) || normal != password && h.matches([]byte(password))
}

// parameters reads "name=number" pairs that must have exactly these names, in this order.
func parameters(text string, names ...string) ([]int, bool) {
	parts := strings.Split(text, ",")
	if len(parts) != len(names) {
		return nil, false
	}
	out := make([]int, len(parts))
	for i, part := range parts {
		number, ok := strings.CutPrefix(part, names[i]+"=")
		if !ok {
			return nil, false
		}
		if out[i], ok = natural(number); !ok {
			return nil, false
		}
	}
	return out, true
}

// natural reads a decimal number without sign and leading zeros, of at most nine digits.
func natural(text string) (int, bool) {
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= 0 && len(text) <= 9 && strconv.Itoa(n) == text
}

// decode reads base64 with or without padding, in the alphabets that the systems use.
func decode(text string) ([]byte, bool) {
	text = strings.NewReplacer("-", "+", "_", "/", ".", "+").Replace(strings.TrimRight(text, "="))
	b, err := base64.RawStdEncoding.DecodeString(text)
	return b, err == nil
}

// sized reports whether a salt and a key have lengths that a real hash has.
func sized(salt, key []byte) bool {
	return len(salt) > 0 && len(salt) <= maxSalt && len(key) >= minKey && len(key) <= maxKey
}
