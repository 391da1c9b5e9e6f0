package accounts

import (
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/passwordhash"
)

const (
	minPassword = 10  // characters
	maxPassword = 256 // characters
	// maxPasswordBytes bounds the work on input that cannot be a password.
	// No password of maxPassword characters is longer, however its accents
	// are written.
	maxPasswordBytes = 16 * maxPassword

	saltSize = 16 // bytes
	hashSize = 32 // bytes
)

// normalPassword normalises a password to NFC: an "é" arrives as one code point
// or as two, depending on the keyboard (NIST SP 800-63B, 3.1.1.2).
func normalPassword(p keyring.Secret) keyring.Secret {
	if len(p.Reveal()) > maxPasswordBytes {
		return p
	}
	return keyring.NewSecret(norm.NFC.String(p.Reveal()))
}

//go:embed common_passwords.txt
var commonPasswords string

// commonPasswordSet contains the most common passwords, in lower case.
var commonPasswordSet = func() map[string]bool {
	set := map[string]bool{}
	for _, line := range strings.Fields(commonPasswords) {
		set[line] = true
	}
	return set
}()

// passwordFault returns why a normalised password is not accepted, or "". Length
// is the main rule; the other rules reject what is guessed first, and demand no
// mixture of character classes.
func passwordFault(password keyring.Secret, email string) string {
	p := password.Reveal()
	lower := strings.ToLower(p)
	switch n := utf8.RuneCountInString(p); {
	case n < minPassword:
		return "must have at least 10 characters"
	case n > maxPassword:
		return "must have at most 256 characters"
	case countDistinct(p) < 5:
		return "must have at least 5 different characters"
	case commonPasswordSet[lower]:
		return "is one of the best-known passwords; choose another"
	case utf8.RuneCountInString(withoutName(lower, email)) < minPassword:
		return "must have at least 10 characters besides the name in your e-mail address"
	}
	return ""
}

func countDistinct(s string) int {
	set := map[rune]bool{}
	for _, r := range s {
		set[r] = true
	}
	return len(set)
}

// withoutName removes the part before the @ from a lower-case password: it is not
// secret, so it does not count. A name of up to three characters is ignored, since
// any word may contain it by chance.
func withoutName(lower, email string) string {
	name, _, _ := strings.Cut(strings.ToLower(email), "@")
	if utf8.RuneCountInString(name) < 4 {
		return lower
	}
	return strings.ReplaceAll(lower, name, "")
}

// recommended is the minimum for argon2id in OWASP's Password Storage Cheat
// Sheet: 19 MiB, two passes, one thread.
var recommended = passwordhash.Argon2Cost{Memory: 19 * 1024, Passes: 2, Threads: 1}

// maxQueue is how many hashes may wait per core: a longer queue would outlast the
// timeouts of clients.
const (
	maxQueue  = 60
	queueWait = 10 * time.Second
)

// hasher hashes passwords with argon2id. A hash occupies a core and its memory
// until it is done, so at most one runs per core.
type hasher struct {
	cost        passwordhash.Argon2Cost
	slots       chan struct{}
	queue       chan struct{} // calls that have a slot or wait for one
	unmatchable string        // a hash that no password matches, at the same cost as the others
}

func newHasher(c passwordhash.Argon2Cost) *hasher {
	h := &hasher{
		cost:  c,
		slots: make(chan struct{}, runtime.GOMAXPROCS(0)),
		queue: make(chan struct{}, runtime.GOMAXPROCS(0)*maxQueue),
	}
	h.unmatchable = h.newUnmatchable()
	return h
}

// newUnmatchable returns a hash that no password matches, at the cost of the others.
func (h *hasher) newUnmatchable() string {
	return passwordhash.Argon2{Variant: passwordhash.Argon2id, Cost: h.cost, Salt: random(saltSize), Key: random(hashSize)}.String()
}

// hash returns the PHC string of a password, with a random salt. It fails with
// rate_limited when too many calls wait, or ctx ends while it waits.
func (h *hasher) hash(ctx context.Context, password keyring.Secret) (hash string, err error) {
	err = h.inTurn(ctx, password, func(input string) {
		hash = passwordhash.NewArgon2(norm.NFC.String(input), h.cost, random(saltSize), hashSize).String()
	})
	return hash, err
}

// verify reports whether password matches the stored hash, and whether that hash is not
// as new ones are: at another cost, or of another system from which the user was
// imported. It fails when the stored hash cannot be read, too many calls wait or ctx ends
// first.
func (h *hasher) verify(ctx context.Context, stored string, password keyring.Secret) (match, outdated bool, err error) {
	want, err := passwordhash.Parse(stored)
	if err != nil {
		return false, false, fmt.Errorf("accounts: what is stored %w", err)
	}
	err = h.inTurn(ctx, password, func(input string) { match = input != "" && passwordhash.Matches(want, input) })
	own, ok := want.(passwordhash.Argon2)
	return match, !ok || own.Variant != passwordhash.Argon2id || own.Cost != h.cost || len(own.Salt) != saltSize || len(own.Key) != hashSize, err
}

func errBusy(cause error) error {
	busy := stoa.Errorf(stoa.RateLimited, "Very many people are signing in at this moment. Try again later.").WithCause(cause)
	busy.RetryAfter = queueWait
	return busy
}

// inTurn calls work with the password when a core is free. Input that is too long for a
// password was never accepted, and is replaced by "", which matches nothing.
func (h *hasher) inTurn(ctx context.Context, password keyring.Secret, work func(input string)) error {
	input := password.Reveal()
	if len(input) > maxPasswordBytes {
		input = ""
	}
	select {
	case h.queue <- struct{}{}:
		defer func() { <-h.queue }()
	default:
		return errBusy(nil)
	}
	late := time.NewTimer(queueWait)
	defer late.Stop()
	select {
	case h.slots <- struct{}{}:
	case <-late.C: // the rest of the request needs time too
		return errBusy(nil)
	case <-ctx.Done():
		return errBusy(ctx.Err())
	}
	defer func() { <-h.slots }()
	work(input)
	return nil
}

func random(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.Read(b) // never fails: see crypto/rand
	return b
}
