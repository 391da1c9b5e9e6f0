package passwordhash

import (
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Argon2 is a hash by argon2id or argon2i, in the PHC string format:
// "$argon2id$v=19$m=19456,t=2,p=1$<salt>$<key>".
type Argon2 struct {
	Variant string // argon2id or argon2i
	Cost    Argon2Cost
	Salt    []byte
	Key     []byte
}

// Argon2Cost is the cost of one hash.
type Argon2Cost struct {
	Memory  uint32 // KiB
	Passes  uint32
	Threads uint8
}

// maxArgon2 limits the cost of a stored hash.
var maxArgon2 = Argon2Cost{Memory: 128 << 10, Passes: 8, Threads: 8}

// Argon2id is the variant of this platform's own hashes.
const Argon2id = "argon2id"

// NewArgon2 returns the hash of a password by argon2id, with a key of that many bytes.
func NewArgon2(password string, cost Argon2Cost, salt []byte, size int) Argon2 {
	h := Argon2{Variant: Argon2id, Cost: cost, Salt: salt, Key: make([]byte, size)}
	h.Key = h.derive([]byte(password))
	return h
}

func (h Argon2) derive(password []byte) []byte {
	derive := argon2.IDKey
	if h.Variant != Argon2id {
		derive = argon2.Key
	}
	return derive(password, h.Salt, h.Cost.Passes, h.Cost.Memory, h.Cost.Threads, uint32(len(h.Key))) //nolint:gosec // at most 64
}

func (h Argon2) matches(password []byte) bool {
	return subtle.ConstantTimeCompare(h.derive(password), h.Key) == 1
}

func (h Argon2) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$%s$v=%d$m=%d,t=%d,p=%d$%s$%s", h.Variant, argon2.Version,
		h.Cost.Memory, h.Cost.Passes, h.Cost.Threads, b64.EncodeToString(h.Salt), b64.EncodeToString(h.Key))
}

// parseArgon2 reads the format that libraries of PHP, Python and Go write.
func parseArgon2(stored string) (Hash, error) {
	parts := strings.Split(stored, "$")
	if len(parts) != 6 || parts[1] != Argon2id && parts[1] != "argon2i" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return nil, ErrFormat
	}
	numbers, ok := parameters(parts[3], "m", "t", "p")
	salt, saltOK := decode(parts[4])
	key, keyOK := decode(parts[5])
	if !ok || !saltOK || !keyOK || !sized(salt, key) || len(salt) < 8 {
		return nil, ErrFormat
	}
	memory, passes, threads := numbers[0], numbers[1], numbers[2]
	if threads < 1 || passes < 1 || memory < 8*threads { // RFC 9106, 3.1
		return nil, ErrFormat
	}
	if memory > int(maxArgon2.Memory) || passes > int(maxArgon2.Passes) || threads > int(maxArgon2.Threads) {
		return nil, ErrCost
	}
	return Argon2{
		Variant: parts[1], Salt: salt, Key: key,
		Cost: Argon2Cost{Memory: uint32(memory), Passes: uint32(passes), Threads: uint8(threads)}, //nolint:gosec // below the maximum
	}, nil
}
