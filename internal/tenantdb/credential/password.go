package credential

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"fmt"
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

// nameEncoding is base32 in lower case.
var nameEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NamePart writes random bytes as a part of a name of a database or a role. It uses only
// letters and digits whose case no engine changes.
func NamePart(random []byte) string { return nameEncoding.EncodeToString(random) }

// ScramVerifier returns the form in which PostgreSQL stores a password and
// accepts it in a statement, so that no log of a server contains the password.
// The password must be ASCII: other characters would have to be normalised.
//
// The same password always gives the same verifier. PgBouncer signs in to the server
// with the keys that a client proved to it; when a second caller set the same password
// with another salt, those keys would be wrong, and PgBouncer would refuse the role for
// its server_login_retry (15 s). The salt is therefore derived from the password, which
// is random and used once.
// Source: RFC 5802, section 3; PostgreSQL manual, pg_authid.
func ScramVerifier(password keyring.Secret) (string, error) {
	const iterations = 4096 // PostgreSQL's own value; the password has 135 random bits
	derived := hmac.New(sha256.New, []byte(password.Reveal()))
	derived.Write([]byte("salt of a SCRAM verifier"))
	salt := derived.Sum(nil)[:16]
	salted, err := pbkdf2.Key(sha256.New, password.Reveal(), salt, iterations, sha256.Size)
	if err != nil {
		return "", err
	}
	keyed := func(word string) []byte {
		mac := hmac.New(sha256.New, salted)
		mac.Write([]byte(word))
		return mac.Sum(nil)
	}
	stored := sha256.Sum256(keyed("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(stored[:]), b64(keyed("Server Key"))), nil
}
