package accounts

import (
	"context"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/ratelimit"
)

// The backoff of sign-in attempts at one account. Attempts from one network, which may be
// the owner's, are delayed early and by at most a minute. Attempts from all networks
// where the account has never signed in are delayed late and down to a few an hour,
// however many addresses an attacker has. On a network where the owner has signed in,
// or has set the password with a link, only that network's attempts count, so that
// nobody can lock the owner out.
var (
	fromNetwork   = ratelimit.Backoff{Free: 10, Most: time.Minute}
	fromStrangers = ratelimit.Backoff{Free: 50, Most: 15 * time.Minute}
	fromSession   = ratelimit.Backoff{Free: 10, Most: time.Minute} // the password, of a caller with a session
)

// admitLogin counts an attempt to sign in, or fails with rate_limited before the
// password is hashed. It returns the user and the stored hash, as userByEmail
// does. The caller calls reset when the password is correct.
func (a *Accounts) admitLogin(ctx context.Context, email string, c Client) (user User, stored string, reset func(), err error) {
	account := strings.ToLower(email)
	if stored, ok := storedEmail(email); ok {
		account = stored
	}
	counted := []ratelimit.Key{ratelimit.Of("sign-in-network", account, networkOf(c.Address).String())}
	if err := a.attempt(ctx, counted[0], fromNetwork); err != nil {
		return User{}, "", nil, err
	}
	if user, stored, err = a.userByEmail(ctx, email); err != nil {
		return User{}, "", nil, err
	}
	known, err := a.isKnownNetwork(ctx, user.ID, c)
	if err != nil {
		return User{}, "", nil, err
	}
	if !known {
		counted = append(counted, ratelimit.Of("sign-in-strangers", account))
		if err := a.attempt(ctx, counted[1], fromStrangers); err != nil {
			return User{}, "", nil, err
		}
	}
	return user, stored, func() { a.opts.Limits.Forget(ctx, counted...) }, nil
}

func (a *Accounts) attempt(ctx context.Context, k ratelimit.Key, p ratelimit.Backoff) error {
	wait := a.opts.Limits.Attempt(ctx, k, p)
	if wait == 0 {
		return nil
	}
	return errRateLimited(wait, "There were too many attempts with a wrong password. Try again after "+strconv.Itoa(int(wait.Seconds())+1)+
		" s, or set a new password with a link sent to your address and sign in at once.")
}

// maxNetworks is how many addresses of a user are read, the last used first.
const maxNetworks = 200

// isKnownNetwork reports whether the user has signed in from the client's network
// or has reset their password there. It does the same work without a user.
func (a *Accounts) isKnownNetwork(ctx context.Context, user stoa.UserID, c Client) (bool, error) {
	var addresses []string
	err := a.db.Select(ctx, &addresses, `
		SELECT address FROM sessions WHERE user_id = $1 AND impersonator IS NULL
		GROUP BY address ORDER BY max(last_used_at) DESC LIMIT $2`, user, maxNetworks)
	if err != nil {
		return false, err
	}
	network := networkOf(c.Address)
	for _, address := range addresses {
		if networkOf(address) == network {
			return true, nil
		}
	}
	return false, nil
}

// networkOf returns the network that counts as one client.
func networkOf(address string) netip.Prefix {
	a, _ := netip.ParseAddr(address) // all invalid addresses are one network
	return ratelimit.Network(a)
}

// rememberNetwork makes the client's network a known one for a day, by a revoked
// session, after the user has reset their password by mail.
func (a *Accounts) rememberNetwork(ctx context.Context, tx *masterdb.Tx, user stoa.UserID, c Client) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO sessions (id, user_id, user_agent, address, created_at, last_used_at, expires_at, revoked_at)
		VALUES ($1, $2, 'password reset', $3, $4, $4, $5, $4)`,
		stoa.NewID[stoa.SessionID](), user, sanitize(c.Address, maxAddress), tx.Now, tx.Now.Add(24*time.Hour))
	return err
}

// newMemoryLimiter returns a limiter that counts in memory.
func newMemoryLimiter() *ratelimit.Limiter {
	l, _ := ratelimit.New(keyring.Secret{}, nil) // without a server nothing can fail
	return l
}
