package stores

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// PlatformHosts returns the names at which the platform itself answers, in
// stored form: localhost, its base domain, the host of its base URL and the
// others that the operator has named.
func PlatformHosts(domain, baseURL string, others []string) []string {
	hosts := append([]string{"localhost", domain}, others...)
	if own, err := url.Parse(baseURL); err == nil {
		hosts = append(hosts, own.Hostname())
	}
	for i, host := range hosts {
		if name, err := NormalHostname(host); err == nil { // else it is an IPv6 address
			hosts[i] = name
		}
	}
	slices.Sort(hosts)
	return slices.DeleteFunc(slices.Compact(hosts), func(host string) bool { return host == "" })
}

// platform are the hosts of the platform and the slugs that would lead there.
type platform struct {
	hosts  map[string]bool
	labels map[string]string // a label under the base domain → the platform's host with it
}

// ServePlatformAt keeps hosts, as PlatformHosts returns them, for the platform:
// no store answers there, and none gets a slug that would lead there. It is for
// the time before the registry is used.
func (r *Registry) ServePlatformAt(hosts []string) {
	r.platform = newPlatform(r.domain, hosts)
	r.resolver.platform = r.platform.hosts
}

func newPlatform(domain string, hosts []string) platform {
	p := platform{hosts: map[string]bool{}, labels: map[string]string{}}
	for _, host := range hosts {
		p.hosts[host] = true
		// Of a.b.<domain> the label b is kept too: a page at b.<domain> could set
		// cookies for the platform's host.
		if prefix, ok := strings.CutSuffix(host, "."+strings.ToLower(domain)); ok {
			p.labels[prefix[strings.LastIndexByte(prefix, '.')+1:]] = host
		}
	}
	return p
}

// slugFault says what keeps a slug from being chosen, or "".
func (p platform) slugFault(slug string) string {
	if fault := slugFault(slug); fault != "" {
		return fault
	}
	if p.labels[slug] != "" {
		return reservedFault
	}
	return ""
}

// Collision is a store whose slug or hostname belongs to the platform.
type Collision struct {
	StoreID stoa.StoreID
	Slug    string
	Host    string // the platform's
}

// Collisions lists the stores that have a slug or a hostname of the platform's:
// from before the platform answered there. hosts are as PlatformHosts returns
// them. It is for the operator and checks no rights.
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
			all = append(all, Collision{c.StoreID, c.Slug, host})
		}
	}
	for label, host := range p.labels {
		var found []Collision
		if err := q.Select(ctx, &found, `SELECT s.id AS store_id, s.slug FROM stores s WHERE s.slug = $1`, label); err != nil {
			return nil, err
		}
		for _, c := range found {
			if !slices.ContainsFunc(all, func(known Collision) bool { return known.StoreID == c.StoreID }) {
				all = append(all, Collision{c.StoreID, c.Slug, host})
			}
		}
	}
	slices.SortFunc(all, func(a, b Collision) int { return strings.Compare(a.Host+a.Slug, b.Host+b.Slug) })
	return all, nil
}
