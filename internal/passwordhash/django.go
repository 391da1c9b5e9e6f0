package passwordhash

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Django writes the name of the algorithm before some of the hashes.

func parseDjangoArgon2(stored string) (Hash, error) {
	return parseArgon2(strings.TrimPrefix(stored, "argon2"))
}

func parseDjangoBcrypt(stored string) (Hash, error) {
	return parseBcrypt(strings.TrimPrefix(stored, "bcrypt$"))
}

// bcryptSHA256 is a hash by bcrypt of the SHA-256 of the password, in hexadecimal digits,
// since bcrypt reads only the first 72 bytes.
type bcryptSHA256 struct{ Hash }

func parseDjangoBcryptSHA256(stored string) (Hash, error) {
	h, err := parseBcrypt(strings.TrimPrefix(stored, "bcrypt_sha256$"))
	if err != nil {
		return nil, err
	}
	return bcryptSHA256{h}, nil
}

func (h bcryptSHA256) matches(password []byte) bool {
	sum := sha256.Sum256(password)
	return h.Hash.matches([]byte(hex.EncodeToString(sum[:])))
}
