package passwordhash

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"strings"

	"golang.org/x/crypto/scrypt"
)

// scryptHash is a hash by scrypt: of Django ("scrypt$N$salt$r$p$base64"), of Werkzeug
// ("scrypt:N:r:p$salt$hex"), and in the PHC string format
// ("$scrypt$ln=14,r=8,p=1$base64$base64").
type scryptHash struct {
	cost scryptCost
	salt []byte
	key  []byte
}

// scryptCost are scrypt's parameters: N is a power of two.
type scryptCost struct{ n, r, p int }

// maxScryptMemory limits 128 · N · r, in bytes, and maxScryptWork that times p.
const (
	maxScryptMemory = 64 << 20
	maxScryptWork   = 128 << 20
)

// check fails with ErrFormat for what are no parameters of scrypt, and with ErrCost.
func (c scryptCost) check() error {
	if c.n < 2 || c.n&(c.n-1) != 0 || c.r < 1 || c.p < 1 {
		return ErrFormat
	}
	if c.r > 64 || c.p > 16 || c.n > maxScryptMemory/128/c.r || c.n*c.r > maxScryptWork/128/c.p {
		return ErrCost
	}
	return nil
}

// exponent returns 2 to the power of e, or 0 if that is too large.
func exponent(e int) int {
	if e > 30 {
		return 0
	}
	return 1 << e
}

func parseScrypt(stored string) (Hash, error) {
	parts := strings.Split(strings.TrimPrefix(stored, "$"), "$")
	var h scryptHash
	var ok, saltOK, keyOK bool
	switch {
	case len(parts) == 6 && parts[0] == "scrypt": // Django
		ok = h.cost.read(parts[1], parts[3], parts[4])
		h.salt, saltOK = []byte(parts[2]), true
		h.key, keyOK = decode(parts[5])
	case len(parts) == 4 && parts[0] == "scrypt": // PHC
		var numbers []int
		if numbers, ok = parameters(parts[1], "ln", "r", "p"); ok {
			h.cost = scryptCost{n: exponent(numbers[0]), r: numbers[1], p: numbers[2]}
		}
		h.salt, saltOK = decode(parts[2])
		h.key, keyOK = decode(parts[3])
	case len(parts) == 3 && strings.HasPrefix(parts[0], "scrypt:"): // Werkzeug
		if numbers := strings.Split(parts[0], ":"); len(numbers) == 4 {
			ok = h.cost.read(numbers[1], numbers[2], numbers[3])
		}
		h.salt, saltOK = []byte(parts[1]), true
		h.key, keyOK = decodeHex(parts[2])
	}
	if !ok || !saltOK || !keyOK || !sized(h.salt, h.key) {
		return nil, ErrFormat
	}
	if err := h.cost.check(); err != nil {
		return nil, err
	}
	return h, nil
}

func (c *scryptCost) read(n, r, p string) bool {
	var nOK, rOK, pOK bool
	c.n, nOK = natural(n)
	c.r, rOK = natural(r)
	c.p, pOK = natural(p)
	return nOK && rOK && pOK
}

func (h scryptHash) matches(password []byte) bool {
	key, err := scrypt.Key(password, h.salt, h.cost.n, h.cost.r, h.cost.p, len(h.key))
	return err == nil && subtle.ConstantTimeCompare(key, h.key) == 1
}

// firebaseHash is a hash of Firebase, whose scrypt encrypts a key of the project. The text
// has the form in which Supabase imports it:
// "$fbscrypt$v=1,n=14,r=8,p=1,ss=<separator>,sk=<signer key>$<salt>$<key>".
// Source: the README of github.com/firebase/scrypt.
type firebaseHash struct {
	cost   scryptCost
	salt   []byte // with the separator
	signer []byte
	key    []byte
}

// maxSigner is the length of the longest key of a project, in bytes; Firebase's have 64.
const maxSigner = 128

func parseFirebase(stored string) (Hash, error) {
	parts := strings.Split(stored, "$")
	if len(parts) != 5 || parts[1] != "fbscrypt" {
		return nil, ErrFormat
	}
	numbers, texts, ok := strings.Cut(parts[2], ",ss=")
	separator, signer, both := strings.Cut(texts, ",sk=")
	cost, costOK := parameters(numbers, "v", "n", "r", "p")
	if !ok || !both || !costOK || cost[0] != 1 {
		return nil, ErrFormat
	}
	h := firebaseHash{cost: scryptCost{n: exponent(cost[1]), r: cost[2], p: cost[3]}}
	end, endOK := decode(separator)
	salt, saltOK := decode(parts[3])
	var signerOK, keyOK bool
	h.signer, signerOK = decode(signer)
	h.key, keyOK = decode(parts[4])
	h.salt = append(salt, end...)
	if !endOK || !saltOK || !signerOK || !keyOK || len(salt) == 0 || len(h.salt) > maxSalt || len(h.signer) < minKey || len(h.signer) > maxSigner || len(h.key) != len(h.signer) {
		return nil, ErrFormat
	}
	if err := h.cost.check(); err != nil {
		return nil, err
	}
	return h, nil
}

func (h firebaseHash) matches(password []byte) bool {
	key, err := scrypt.Key(password, h.salt, h.cost.n, h.cost.r, h.cost.p, 32)
	if err != nil {
		return false
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return false
	}
	got := make([]byte, len(h.signer))
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(got, h.signer) //nolint:gosec // Firebase defines it so: the key is used once
	return subtle.ConstantTimeCompare(got, h.key) == 1
}
