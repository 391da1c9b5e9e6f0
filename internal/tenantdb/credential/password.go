package credential

import (
	"crypto/rand"
	"math/big"

	"github.com/stoahq/stoa/internal/keyring"
)

// passwordClasses are the four classes of characters that password policies
// require. None of the characters needs quotes in SQL or an escape in a URL.
// There are no vowels, so that a password contains no dictionary word, and no
// letters or digits that look alike.
var passwordClasses = [...]string{"bcdfghjkmnpqrstvwxz", "-._~", "23456789", "BCDFGHJKMNPQRSTVWXZ"}

// passwordGroups is the number of characters of each class in a password.
const passwordGroups = 10

// NewPassword returns a random password of 135 bits for a role that Stoa
// creates on a database server. It has 40 characters, 10 of each class, and no
// two adjacent characters of one class. Policies such as MySQL's
// validate_password and MariaDB's simple_password_check may require several of
// each class.
func NewPassword() keyring.Secret {
	var password []byte
	for range passwordGroups {
		for _, class := range passwordClasses {
			at, _ := rand.Int(rand.Reader, big.NewInt(int64(len(class)))) // it never fails
			password = append(password, class[at.Int64()])
		}
	}
	return keyring.NewSecret(string(password))
}
