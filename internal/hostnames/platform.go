package hostnames

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// PlatformHosts returns the names at which the platform itself answers, in stored form:
// localhost, its base domain, the host of its base URL and the other names that the
// operator has configured.
func PlatformHosts(domain, baseURL string, others []string) []string {
	hosts := append([]string{"localhost", domain}, others...)
	if own, err := url.Parse(baseURL); err == nil {
		hosts = append(hosts, own.Hostname())
	}
	for i, host := range hosts {
		if name, err := Normalize(host); err == nil { // otherwise it is an IPv6 address
			hosts[i] = name
		}
	}
	slices.Sort(hosts)
	return slices.DeleteFunc(slices.Compact(hosts), func(host string) bool { return host == "" })
}

// platform is the set of the platform's hosts and of the slugs whose hostnames would be
// those hosts.
type platform struct {
	hosts  map[string]bool
	labels map[string]string // a label under the base domain → the platform's host with it
}

// ReservePlatformHosts reserves hosts, as PlatformHosts returns them, for the platform:
// no store answers there, and IsReserved returns true for slugs whose hostname would be
// one of them. Call it before the service is in use.
func (s *Service) ReservePlatformHosts(hosts []string) {
	s.platform = newPlatform(s.domain, hosts)
	s.resolver.platform = s.platform.hosts
}

// IsReserved reports whether <slug>.<domain> would be a host of the platform.
func (s *Service) IsReserved(slug string) bool { return s.platform.labels[slug] != "" }

func newPlatform(domain string, hosts []string) platform {
	p := platform{hosts: map[string]bool{}, labels: map[string]string{}}
	for _, host := range hosts {
		p.hosts[host] = true
		// Of a.b.<domain> the label b is reserved too: a page at b.<domain> could set
		// cookies for the platform's host.
		if prefix, ok := strings.CutSuffix(host, "."+strings.ToLower(domain)); ok {
			p.labels[prefix[strings.LastIndexByte(prefix, '.')+1:]] = host
		}
	}
	return p
}

// Collision is a store whose slug or hostname belongs to the platform.
type Collision struct {
	StoreID stoa.StoreID
	Slug    string
	Host    string // the platform's
}

// Collisions lists the stores whose slug or hostname belongs to the platform, since they
// existed before that host was configured. hosts are as PlatformHosts returns them. It
// checks no permissions.
func Collisions(ctx context.Context, q masterdb.Querier, domain string, hosts []string) ([]Collision, error) {
	p := newPlatform(domain, hosts)
	var all []Collision
	for _, host := range hosts {
		var found []Collision
		err := q.Select(ctx, &found, `SELECT s.id AS store_id, s.slug FROM stores s JOIN store_hostnames h ON h.store_id = s.id
			WHERE h.hostname = $1 AND s.status <> 'deleted'`, host)
		if err != nil {
			return nil, err
		}
		for _, c := range found {
			all = append(all, Collision{StoreID: c.StoreID, Slug: c.Slug, Host: host})
		}
	}
	for label, host := range p.labels {
		var found []Collision
		if err := q.Select(ctx, &found, `SELECT s.id AS store_id, s.slug FROM stores s WHERE s.slug = $1`, label); err != nil {
			return nil, err
		}
		for _, c := range found {
			if !slices.ContainsFunc(all, func(known Collision) bool { return known.StoreID == c.StoreID }) {
				all = append(all, Collision{StoreID: c.StoreID, Slug: c.Slug, Host: host})
			}
		}
	}
	slices.SortFunc(all, func(a, b Collision) int { return strings.Compare(a.Host+a.Slug, b.Host+b.Slug) })
	return all, nil
}
