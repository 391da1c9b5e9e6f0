package passwordhash

import (
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // older exports of Django have it
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/hex"
	"hash"
	"strings"
)

// pbkdf2Hash is a hash by PBKDF2: of Django ("pbkdf2_sha256$rounds$salt$base64"), of
// Werkzeug ("pbkdf2:sha256:rounds$salt$hex"), and of passlib
// ("$pbkdf2-sha256$rounds$base64$base64").
type pbkdf2Hash struct {
	digest func() hash.Hash
	rounds int
	salt   []byte
	key    []byte
}

var digests = map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New}

// maxRounds limits the cost of a stored hash: about a second.
const maxRounds = 2_000_000

func parsePBKDF2(stored string) (Hash, error) {
	parts := strings.Split(strings.TrimPrefix(stored, "$"), "$")
	var rounds, digest string
	var h pbkdf2Hash
	var saltOK, keyOK bool
	switch method := parts[0]; {
	case strings.HasPrefix(method, "pbkdf2_") && len(parts) == 4: // Django
		digest, rounds = strings.TrimPrefix(method, "pbkdf2_"), parts[1]
		h.salt, saltOK = []byte(parts[2]), true
		h.key, keyOK = decode(parts[3])
	case strings.HasPrefix(method, "pbkdf2-") && len(parts) == 4: // passlib
		digest, rounds = strings.TrimPrefix(method, "pbkdf2-"), parts[1]
		h.salt, saltOK = decode(parts[2])
		h.key, keyOK = decode(parts[3])
	case strings.HasPrefix(method, "pbkdf2:") && len(parts) == 3: // Werkzeug
		digest, rounds, _ = strings.Cut(strings.TrimPrefix(method, "pbkdf2:"), ":")
		h.salt, saltOK = []byte(parts[1]), true
		h.key, keyOK = decodeHex(parts[2])
	}
	var ok bool
	h.rounds, ok = natural(rounds)
	h.digest = digests[digest]
	if !ok || !saltOK || !keyOK || h.digest == nil || h.rounds < 1 || !sized(h.salt, h.key) {
		return nil, ErrFormat
	}
	if h.rounds > maxRounds {
		return nil, ErrCost
	}
	return h, nil
}

func decodeHex(text string) ([]byte, bool) {
	b, err := hex.DecodeString(text)
	return b, err == nil
}

func (h pbkdf2Hash) matches(password []byte) bool {
	key, err := pbkdf2.Key(h.digest, string(password), h.salt, h.rounds, len(h.key))
	return err == nil && subtle.ConstantTimeCompare(key, h.key) == 1
}
