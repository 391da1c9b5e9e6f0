package accounts

import (
	"context"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/limits"
	"github.com/stoahq/stoa/masterdb"
)

// How attempts at one account are slowed down. From one network it begins soon
// and stays bearable, since that may be the owner's own. From all networks
// together, where the account has never signed in, it begins late and goes on
// to a few guesses an hour, however many addresses somebody has. The owner is
// not among these: where they have signed in before, or have set the password
// with a link, only their own network's attempts count. So no stranger keeps
// them out.
var (
	fromNetwork   = limits.Patience{Free: 10, Most: time.Minute}
	fromStrangers = limits.Patience{Free: 50, Most: 15 * time.Minute}
	fromSession   = limits.Patience{Free: 10, Most: time.Minute} // the password, by who has a session
)

// admit lets an attempt to sign in pass, or fails with rate_limited before the
// password costs anything. It returns the user and the stored hash, as
// userByEmail does; proven is to be called when the password was right.
func (a *Accounts) admit(ctx context.Context, email string, c Client) (user User, stored string, proven func(), err error) {
	account := strings.ToLower(email)
	if stored, ok := storedEmail(email); ok {
		account = stored
	}
	counted := []limits.Key{limits.Of("sign-in-network", account, networkOf(c.Address).String())}
	if err := a.attempt(ctx, counted[0], fromNetwork); err != nil {
		return User{}, "", nil, err
	}
	if user, stored, err = a.userByEmail(ctx, email); err != nil {
		return User{}, "", nil, err
	}
	known, err := a.knowsNetwork(ctx, user.ID, c)
	if err != nil {
		return User{}, "", nil, err
	}
	if !known {
		counted = append(counted, limits.Of("sign-in-strangers", account))
		if err := a.attempt(ctx, counted[1], fromStrangers); err != nil {
			return User{}, "", nil, err
		}
	}
	return user, stored, func() { a.opts.Limits.Forget(ctx, counted...) }, nil
}

func (a *Accounts) attempt(ctx context.Context, k limits.Key, p limits.Patience) error {
	wait := a.opts.Limits.Attempt(ctx, k, p)
	if wait == 0 {
		return nil
	}
	return tooMany(wait, "There were too many attempts with a wrong password. After "+strconv.Itoa(int(wait.Seconds())+1)+
		" s the next one is heard; a new password, set with the link that POST /api/auth/forgot-password has sent, is heard at once.")
}

// maxNetworks is how many addresses of a user are looked at, those used last.
const maxNetworks = 200

// knowsNetwork reports whether the user has signed in from there before, or
// has set a password from there by mail. It does the same work for no user.
func (a *Accounts) knowsNetwork(ctx context.Context, user stoa.UserID, c Client) (bool, error) {
	var addresses []string
	err := a.db.Select(ctx, &addresses, `
		SELECT address FROM sessions WHERE user_id = $1 AND impersonator IS NULL
		GROUP BY address ORDER BY max(last_used_at) DESC LIMIT $2`, user, maxNetworks)
	if err != nil {
		return false, err
	}
	here := networkOf(c.Address)
	for _, address := range addresses {
		if networkOf(address) == here {
			return true, nil
		}
	}
	return false, nil
}

// networkOf is the network that counts as one client.
func networkOf(address string) netip.Prefix {
	a, _ := netip.ParseAddr(address) // what is none is the network of all that have none
	return limits.Network(a)
}

// remember makes the network of who has proven the account's address by mail
// one that the account knows, for a day: a session that has ended already.
func (a *Accounts) remember(ctx context.Context, tx *masterdb.Tx, user stoa.UserID, c Client) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO sessions (id, user_id, user_agent, address, created_at, last_used_at, expires_at, revoked_at)
		VALUES ($1, $2, 'password reset', $3, $4, $4, $5, $4)`,
		stoa.NewID[stoa.SessionID](), user, cleaned(c.Address, maxAddress), tx.Now, tx.Now.Add(24*time.Hour))
	return err
}

// newLimits counts in this process, for who has not said how.
func newLimits() *limits.Limiter {
	l, _ := limits.New(keyring.Secret{}, nil) // without a server nothing can fail
	return l
}
