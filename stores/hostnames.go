package stores

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// Hostname is an address at which a store answers, or is to answer once its
// owner has proven that the name is theirs.
type Hostname struct {
	StoreID    stoa.StoreID
	Hostname   string
	Primary    bool `db:"is_primary"`
	Custom     bool
	VerifiedAt *time.Time
}

func readHostnames(ctx context.Context, q masterdb.Querier, id stoa.StoreID) ([]Hostname, error) {
	var out []Hostname
	err := q.Select(ctx, &out, `SELECT store_id, hostname, is_primary, custom, verified_at FROM store_hostnames
		WHERE store_id = $1 ORDER BY is_primary DESC, created_at, hostname`, id)
	if err != nil {
		return nil, err
	}
	var claimed []Hostname
	err = q.Select(ctx, &claimed, selectUnproven+` x WHERE x.store_id = $1 AND `+unproven+` ORDER BY x.created_at, x.hostname`, id)
	return append(out, claimed...), err
}

// selectUnproven and unproven read claims as hostnames that do not lead to
// the store, or not yet.
const (
	selectUnproven = `SELECT x.store_id, x.hostname, false AS is_primary, true AS custom FROM hostname_claims`
	unproven       = `NOT EXISTS (SELECT 1 FROM store_hostnames h WHERE h.hostname = x.hostname AND h.store_id = x.store_id)`
)

// Site is what a hostname leads to.
type Site struct {
	StoreID  stoa.StoreID
	Status   Status
	StaleFor time.Duration `db:"-"` // its age when the master gave no answer to a newer read; else 0
}

// Resolve returns the store that answers at host, a Host header. It fails
// with store_not_found for an unknown name and with store_suspended or
// store_pending_database when the store is not open.
func (r *Registry) Resolve(ctx context.Context, host string) (Site, error) {
	site, err := r.resolver.lookup(ctx, host)
	if err != nil {
		return Site{}, err
	}
	switch site.Status {
	case Active:
		return site, nil
	case Suspended, Deleting:
		return Site{}, stoa.Errorf(stoa.StoreSuspended, "This store is closed at the moment.")
	case PendingDatabase, Provisioning:
		return Site{}, stoa.Errorf(stoa.StorePendingDatabase, "This store is being set up.")
	case Deleted:
	}
	return Site{}, unknownHost()
}

// Answers reports whether a store answers at host, open or not: whether a
// certificate for that name is worth having. It asks the cache that Resolve
// asks.
func (r *Registry) Answers(ctx context.Context, host string) (bool, error) {
	site, err := r.resolver.lookup(ctx, host)
	if stoa.CodeOf(err) == stoa.StoreNotFound {
		return false, nil
	}
	return err == nil && site.Status != Deleted, err
}

func unknownHost() error { return stoa.Errorf(stoa.StoreNotFound, "No store answers at this address.") }

// NormalHostname brings a Host header to the form in which hostnames are
// stored: no port, no trailing dot, lower case, IDNA's ASCII form.
func NormalHostname(host string) (string, error) {
	if strings.IndexByte(host, ':') >= 0 { // without one, SplitHostPort would make an error
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
	}
	host = strings.TrimSuffix(host, ".")
	if len(host) > 253 || !utf8.ValidString(host) {
		return "", errNotHostname
	}
	if !isPlain(host) {
		var err error
		if host, err = idna.Lookup.ToASCII(host); err != nil {
			return "", err
		}
	}
	// A dot that is left at an end would be an empty label; IDNA makes dots of other characters.
	if host == "" || len(host) > 253 || host[0] == '.' || host[len(host)-1] == '.' {
		return "", errNotHostname
	}
	return host, nil
}

var errNotHostname = errors.New("not a hostname")

// isPlain reports whether host is in stored form already: the common case,
// spared the cost of IDNA.
func isPlain(host string) bool {
	for i := range len(host) {
		c := host[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.') {
			return false
		}
	}
	return !strings.Contains(host, "xn--")
}
