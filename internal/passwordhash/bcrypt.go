package passwordhash

import (
	"regexp"

	"golang.org/x/crypto/bcrypt"
)

// bcryptHash is a hash by bcrypt, as Laravel, Rails (devise without a pepper), Supabase
// and most others write it.
type bcryptHash []byte

var bcryptForm = regexp.MustCompile(`^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)

// maxBcrypt limits the cost of a stored hash: each step doubles its time, and this one
// takes about a second.
const maxBcrypt = 14

func parseBcrypt(stored string) (Hash, error) {
	if !bcryptForm.MatchString(stored) {
		return nil, ErrFormat
	}
	cost, err := bcrypt.Cost([]byte(stored))
	if err != nil {
		return nil, ErrFormat
	}
	if cost > maxBcrypt {
		return nil, ErrCost
	}
	return bcryptHash(stored), nil
}

// bcryptBytes is how much of a password bcrypt reads. The systems cut longer ones.
const bcryptBytes = 72

func (h bcryptHash) matches(password []byte) bool {
	return bcrypt.CompareHashAndPassword(h, password[:min(len(password), bcryptBytes)]) == nil
}
