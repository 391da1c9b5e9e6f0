package accounts

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
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

// cost is the cost of one hash.
type cost struct {
	memory  uint32 // KiB
	passes  uint32
	threads uint8
}

// recommended is the minimum for argon2id in OWASP's Password Storage Cheat
// Sheet: 19 MiB, two passes, one thread.
var recommended = cost{memory: 19 * 1024, passes: 2, threads: 1}

// maxCost limits the cost of a stored hash, so that a manipulated row cannot
// exhaust the machine.
var maxCost = cost{memory: 128 * 1024, passes: 8, threads: 8}

func (c cost) acceptable() bool {
	return c.memory >= 8*uint32(c.threads) && c.memory <= maxCost.memory && // RFC 9106, 3.1
		c.passes >= 1 && c.passes <= maxCost.passes &&
		c.threads >= 1 && c.threads <= maxCost.threads
}

// maxQueue is how many hashes may wait per core: a longer queue would outlast the
// timeouts of clients.
const (
	maxQueue  = 60
	queueWait = 10 * time.Second
)

// hasher hashes passwords with argon2id. A hash occupies a core and its memory
// until it is done, so at most one runs per core.
type hasher struct {
	cost        cost
	slots       chan struct{}
	queue       chan struct{} // calls that have a slot or wait for one
	unmatchable string        // a hash that no password matches, at the same cost as the others
}

func newHasher(c cost) *hasher {
	return &hasher{
		cost:        c,
		slots:       make(chan struct{}, runtime.GOMAXPROCS(0)),
		queue:       make(chan struct{}, runtime.GOMAXPROCS(0)*maxQueue),
		unmatchable: phc{cost: c, salt: random(saltSize), key: random(hashSize)}.String(),
	}
}

// hash returns the PHC string of a password, with a random salt. It fails with
// rate_limited when too many calls wait, or ctx ends while it waits.
func (h *hasher) hash(ctx context.Context, password keyring.Secret) (string, error) {
	out := phc{cost: h.cost, salt: random(saltSize)}
	var err error
	out.key, err = h.derive(ctx, password, out, hashSize)
	return out.String(), err
}

// verify reports whether password matches the stored hash, and whether that hash
// has another cost than new ones. It fails when the stored hash cannot be read,
// too many calls wait or ctx ends first.
func (h *hasher) verify(ctx context.Context, stored string, password keyring.Secret) (match, outdated bool, err error) {
	want, err := parsePHC(stored)
	if err != nil {
		return false, false, err
	}
	got, err := h.derive(ctx, password, want, len(want.key))
	if err != nil {
		return false, false, err
	}
	match = subtle.ConstantTimeCompare(got, want.key) == 1
	return match, want.cost != h.cost || len(want.salt) != saltSize || len(want.key) != hashSize, nil
}

func errBusy(cause error) error {
	busy := stoa.Errorf(stoa.RateLimited, "Very many people are signing in at this moment. Try again later.").WithCause(cause)
	busy.RetryAfter = queueWait
	return busy
}

func (h *hasher) derive(ctx context.Context, password keyring.Secret, p phc, size int) ([]byte, error) {
	input := normalPassword(password).Reveal()
	if len(input) > maxPasswordBytes {
		input = "" // never accepted at registration, so it matches nothing
	}
	select {
	case h.queue <- struct{}{}:
		defer func() { <-h.queue }()
	default:
		return nil, errBusy(nil)
	}
	late := time.NewTimer(queueWait)
	defer late.Stop()
	select {
	case h.slots <- struct{}{}:
	case <-late.C: // the rest of the request needs time too
		return nil, errBusy(nil)
	case <-ctx.Done():
		return nil, errBusy(ctx.Err())
	}
	defer func() { <-h.slots }()
	return argon2.IDKey([]byte(input), p.salt, p.cost.passes, p.cost.memory, p.cost.threads, uint32(size)), nil //nolint:gosec // size is at most 64
}

// phc is a hash with its parameters, in the PHC string format:
// "$argon2id$v=19$m=19456,t=2,p=1$<salt>$<key>".
type phc struct {
	cost cost
	salt []byte
	key  []byte
}

func (p phc) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		p.cost.memory, p.cost.passes, p.cost.threads, b64.EncodeToString(p.salt), b64.EncodeToString(p.key))
}

// errBadHash does not contain the hash.
var errBadHash = errors.New("accounts: the stored password hash cannot be read")

func parsePHC(s string) (phc, error) {
	parts := strings.Split(s, "$")
	if len(parts) != 6 {
		return phc{}, errBadHash
	}
	var p phc
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.cost.memory, &p.cost.passes, &p.cost.threads); err != nil {
		return phc{}, errBadHash
	}
	var saltErr, keyErr error
	p.salt, saltErr = base64.RawStdEncoding.DecodeString(parts[4])
	p.key, keyErr = base64.RawStdEncoding.DecodeString(parts[5])
	// Only the exact form of String is accepted, which checks the algorithm, the
	// version and everything that Sscanf ignores.
	if saltErr != nil || keyErr != nil || p.String() != s {
		return phc{}, errBadHash
	}
	if !p.cost.acceptable() || len(p.salt) < 8 || len(p.salt) > 64 || len(p.key) < 16 || len(p.key) > 64 {
		return phc{}, errBadHash
	}
	return p, nil
}

func random(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.Read(b) // never fails: see crypto/rand
	return b
}
