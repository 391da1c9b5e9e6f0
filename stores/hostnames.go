package stores

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/maypok86/otter/v2"
	"golang.org/x/net/idna"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// Hostname is an address at which a store answers.
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
	return out, err
}

// Site is what a hostname leads to.
type Site struct {
	StoreID stoa.StoreID
	Status  Status
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

func unknownHost() error { return stoa.Errorf(stoa.StoreNotFound, "No store answers at this address.") }

// resolverTTL is how long a change made by another replica may go unnoticed.
const resolverTTL = 5 * time.Second

// Resolver remembers which store answers at which hostname. Only names that
// exist are kept, so that nobody can push them out by asking for others.
type Resolver struct {
	db     *masterdb.DB
	cache  *otter.Cache[string, Site]
	loader otter.LoaderFunc[string, Site]
}

func newResolver(db *masterdb.DB) *Resolver {
	r := &Resolver{db: db, cache: otter.Must(&otter.Options[string, Site]{
		MaximumSize:      100_000,
		ExpiryCalculator: otter.ExpiryWriting[string, Site](resolverTTL),
	})}
	r.loader = r.load
	return r
}

func (r *Resolver) lookup(ctx context.Context, host string) (Site, error) {
	name, err := NormalHostname(host)
	if err != nil {
		return Site{}, unknownHost()
	}
	site, err := r.cache.Get(ctx, name, r.loader)
	if errors.Is(err, otter.ErrNotFound) {
		return Site{}, unknownHost()
	}
	return site, err
}

// load counts a custom hostname only once its owner has proven it.
func (r *Resolver) load(ctx context.Context, name string) (Site, error) {
	var site Site
	err := r.db.Get(ctx, &site, `
		SELECT h.store_id, s.status FROM store_hostnames h JOIN stores s ON s.id = h.store_id
		WHERE h.hostname = $1 AND h.verified_at IS NOT NULL`, name)
	if errors.Is(err, masterdb.ErrNotFound) {
		return Site{}, otter.ErrNotFound
	}
	return site, err
}

// forget drops names. A lookup under way for one of them is discarded and
// made again, so that it cannot bring back what was true before.
func (r *Resolver) forget(hostnames []Hostname) {
	for _, h := range hostnames {
		r.cache.Invalidate(h.Hostname)
	}
}

// NormalHostname brings a Host header to the form in which hostnames are
// stored: no port, no trailing dot, lower case, IDNA's ASCII form.
func NormalHostname(host string) (string, error) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 || !utf8.ValidString(host) {
		return "", fmt.Errorf("not a hostname")
	}
	if isPlain(host) {
		return host, nil
	}
	return idna.Lookup.ToASCII(host)
}

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
