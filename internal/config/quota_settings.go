package config

import (
	"time"

	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/quotas"
)

// Quotas holds the limits of one user and of one store.
type Quotas struct {
	QuotaStoresUnverified  int `name:"quota-stores-unverified" env:"STOA_QUOTA_STORES_UNVERIFIED" default:"3" help:"Stores that one user may create before their e-mail address is verified; deleted ones count until their grace period is over. 0 is no limit. No quota of a user applies to operators." placeholder:"N" group:"config"`
	QuotaStores            int `name:"quota-stores" env:"STOA_QUOTA_STORES" default:"100" help:"Stores that one user may create after that; 0 is no limit." placeholder:"N" group:"config"`
	QuotaStoresPerHour     int `name:"quota-stores-per-hour" env:"STOA_QUOTA_STORES_PER_HOUR" default:"30" help:"Stores that one user may create in an hour; 0 is no limit." placeholder:"N" group:"config"`
	QuotaManagedUnverified int `name:"quota-managed-databases-unverified" env:"STOA_QUOTA_MANAGED_DATABASES_UNVERIFIED" default:"3" help:"Managed databases in the stores that one user created, before their e-mail address is verified; 0 is no limit." placeholder:"N" group:"config"`
	QuotaManaged           int `name:"quota-managed-databases" env:"STOA_QUOTA_MANAGED_DATABASES" default:"100" help:"Managed databases of one user after that; 0 is no limit." placeholder:"N" group:"config"`
	QuotaHostnames         int `name:"quota-hostnames" env:"STOA_QUOTA_HOSTNAMES" default:"20" help:"Custom hostnames of one store, verified or not; 0 is no limit." placeholder:"N" group:"config"`
	QuotaAPIKeys           int `name:"quota-api-keys" env:"STOA_QUOTA_API_KEYS" default:"100" help:"API keys of one store that are not revoked; 0 is no limit." placeholder:"N" group:"config"`
	QuotaInvitations       int `name:"quota-invitations" env:"STOA_QUOTA_INVITATIONS" default:"50" help:"Open invitations of one store; 0 is no limit." placeholder:"N" group:"config"`
	QuotaMembers           int `name:"quota-members" env:"STOA_QUOTA_MEMBERS" default:"1000" help:"Members of one store together with its open invitations; 0 is no limit." placeholder:"N" group:"config"`
	QuotaWebhooks          int `name:"quota-webhooks" env:"STOA_QUOTA_WEBHOOKS" default:"10" help:"Webhook endpoints of one store; 0 is no limit." placeholder:"N" group:"config"`

	KeepSlugs time.Duration `name:"keep-slugs" env:"STOA_KEEP_SLUGS" default:"2160h" help:"How long a slug that a store has given up, renamed or deleted, is kept for its owners; 0s frees it at once." placeholder:"TIME" group:"config"`
}

// MaxQuota is the largest limit that the columns of a user's own limits can hold.
const MaxQuota = 1_000_000

func (q *Quotas) check(fault func(name, format string, args ...any)) {
	for name, limit := range map[string]int{
		"STOA_QUOTA_STORES_UNVERIFIED": q.QuotaStoresUnverified, "STOA_QUOTA_STORES": q.QuotaStores, "STOA_QUOTA_STORES_PER_HOUR": q.QuotaStoresPerHour,
		"STOA_QUOTA_MANAGED_DATABASES_UNVERIFIED": q.QuotaManagedUnverified, "STOA_QUOTA_MANAGED_DATABASES": q.QuotaManaged,
		"STOA_QUOTA_HOSTNAMES": q.QuotaHostnames, "STOA_QUOTA_API_KEYS": q.QuotaAPIKeys, "STOA_QUOTA_INVITATIONS": q.QuotaInvitations,
		"STOA_QUOTA_MEMBERS": q.QuotaMembers, "STOA_QUOTA_WEBHOOKS": q.QuotaWebhooks,
	} {
		if limit < 0 || limit > MaxQuota {
			fault(name, "must be between 0, which is no limit, and %d", MaxQuota)
		}
	}
	if more(q.QuotaStoresUnverified, q.QuotaStores) {
		fault("STOA_QUOTA_STORES_UNVERIFIED", "must not allow more than STOA_QUOTA_STORES")
	}
	if more(q.QuotaManagedUnverified, q.QuotaManaged) {
		fault("STOA_QUOTA_MANAGED_DATABASES_UNVERIFIED", "must not allow more than STOA_QUOTA_MANAGED_DATABASES")
	}
	if q.KeepSlugs < 0 || q.KeepSlugs > 10*365*24*time.Hour {
		fault("STOA_KEEP_SLUGS", "must be between 0s and 87600h")
	}
}

// more reports whether limit a allows more than limit b, where 0 is no limit.
func more(a, b int) bool { return b != 0 && (a == 0 || a > b) }

// Limits returns the quotas as the domains take them.
func (q *Quotas) Limits() quotas.Limits {
	return quotas.Limits{
		Stores:           quotas.PerUser{Unverified: q.QuotaStoresUnverified, Verified: q.QuotaStores},
		ManagedDatabases: quotas.PerUser{Unverified: q.QuotaManagedUnverified, Verified: q.QuotaManaged},
		StoresPerHour:    q.QuotaStoresPerHour,
		Hostnames:        q.QuotaHostnames, APIKeys: q.QuotaAPIKeys, Invitations: q.QuotaInvitations, Members: q.QuotaMembers, Webhooks: q.QuotaWebhooks,
	}
}

// AllPlatformHosts returns the hosts at which the platform itself answers.
func (c *Config) AllPlatformHosts(publicURL string) []string {
	return hostnames.PlatformHosts(c.BaseDomain, publicURL, c.PlatformHosts)
}
