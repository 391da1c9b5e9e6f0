package config

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/httpapi"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/ratelimit"
)

// HTTP holds the settings of the HTTP listener: proxies, hosts, CORS, rate limits.
type HTTP struct {
	TrustedProxies []string `name:"trusted-proxies" env:"STOA_TRUSTED_PROXIES" help:"Networks of the proxies in front, as CIDR: only they are believed where a request comes from." placeholder:"CIDR" group:"config"`
	ProxyHeader    string   `name:"proxy-header" env:"STOA_PROXY_HEADER" enum:"X-Forwarded-For,Forwarded" default:"X-Forwarded-For" help:"The header in which they say it: X-Forwarded-For or Forwarded." placeholder:"NAME" group:"config"`
	PlatformHosts  []string `name:"platform-hosts" env:"STOA_PLATFORM_HOSTS" help:"Hosts that the platform itself answers at, beside localhost and those of the base domain and base URL; stores' hostnames lead to stores alone." placeholder:"NAME" group:"config"`

	CORSOrigins     []string `name:"cors-origins" env:"STOA_CORS_ORIGINS" help:"Origins whose pages may read the API, such as https://app.example.com." placeholder:"ORIGIN" group:"config"`
	CORSCredentials bool     `name:"cors-credentials" env:"STOA_CORS_CREDENTIALS" help:"Those pages may send cookies and the like." group:"config"`

	SecurityContact string `name:"security-contact" env:"STOA_SECURITY_CONTACT" help:"Where to report a vulnerability: an https, mailto or tel address. /.well-known/security.txt names it; unless told, there is none." placeholder:"URI" group:"config"`

	RedisURL          keyring.Secret `name:"redis-url" env:"REDIS_URL" help:"redis://… or rediss://… of a Redis or Valkey server in which all replicas count for the rate limits. Unless told, each counts by itself." placeholder:"URL" group:"config"`
	RateLimitAuth     int            `name:"rate-limit-auth" env:"STOA_RATE_LIMIT_AUTH" default:"60" help:"Sign-ins, registrations and other calls with a password or a mail, a minute from one address; 0 is no limit." placeholder:"N" group:"config"`
	RateLimitAddress  int            `name:"rate-limit-address" env:"STOA_RATE_LIMIT_ADDRESS" default:"12000" help:"Requests a minute from one address." placeholder:"N" group:"config"`
	RateLimitUser     int            `name:"rate-limit-user" env:"STOA_RATE_LIMIT_USER" default:"6000" help:"Requests a minute of one user." placeholder:"N" group:"config"`
	RateLimitKey      int            `name:"rate-limit-key" env:"STOA_RATE_LIMIT_KEY" default:"12000" help:"Requests a minute of one API key." placeholder:"N" group:"config"`
	RateLimitStore    int            `name:"rate-limit-store" env:"STOA_RATE_LIMIT_STORE" default:"60000" help:"Requests a minute to one store's front, and as many with all API keys of the store." placeholder:"N" group:"config"`
	RateLimitDatabase int            `name:"rate-limit-database" env:"STOA_RATE_LIMIT_DATABASE" default:"120" help:"Calls of one user a minute that connect to a store's database server: connecting, testing, new credentials." placeholder:"N" group:"config"`

	InvitationsPerHour int `name:"invitations-per-hour" env:"STOA_INVITATIONS_PER_HOUR" default:"1000" help:"Invitations sent by mail an hour, of all users together; 0 is no limit." placeholder:"N" group:"config"`
}

// maxRate keeps the arithmetic of rate limits exact.
const maxRate = 10_000_000

func (h *HTTP) check(fault func(name, format string, args ...any)) {
	if _, err := h.proxies(); err != nil {
		fault("STOA_TRUSTED_PROXIES", "%v", err)
	}
	for _, host := range h.PlatformHosts {
		if name, err := hostnames.Normalize(host); (err != nil || name != host) && !isIP(host) {
			fault("STOA_PLATFORM_HOSTS", "%q is no host: name it in lower case, without scheme or port, as DNS has it", host)
		}
	}
	for _, o := range h.CORSOrigins {
		if u, err := url.Parse(o); err != nil || u.Host == "" || !stoa.HasValidPort(u) || u.Scheme != "http" && u.Scheme != "https" || o != u.Scheme+"://"+strings.ToLower(u.Host) {
			fault("STOA_CORS_ORIGINS", "%q is no origin: name scheme and host, with a port unless it is the scheme's own, such as https://app.example.com", o)
		}
	}
	if h.CORSCredentials && len(h.CORSOrigins) == 0 {
		fault("STOA_CORS_CREDENTIALS", "needs STOA_CORS_ORIGINS")
	}
	if h.SecurityContact != "" && !isContact(h.SecurityContact) {
		fault("STOA_SECURITY_CONTACT", "must be an https, mailto or tel address, such as mailto:security@example.com")
	}
	for name, rate := range map[string]int{
		"STOA_RATE_LIMIT_AUTH": h.RateLimitAuth, "STOA_RATE_LIMIT_ADDRESS": h.RateLimitAddress, "STOA_RATE_LIMIT_USER": h.RateLimitUser,
		"STOA_RATE_LIMIT_KEY": h.RateLimitKey, "STOA_RATE_LIMIT_STORE": h.RateLimitStore, "STOA_RATE_LIMIT_DATABASE": h.RateLimitDatabase,
		"STOA_INVITATIONS_PER_HOUR": h.InvitationsPerHour,
	} {
		if rate < 0 || rate > maxRate {
			fault(name, "must be between 0, which is no limit, and %d", maxRate)
		}
	}
	if l, err := h.Limiter(slog.New(slog.DiscardHandler)); err != nil {
		fault("REDIS_URL", "%v", err)
	} else {
		l.Close() //nolint:errcheck // it has no connection yet
	}
}

// Limiter returns the limiter of requests: shared through Redis if it is configured.
func (h *HTTP) Limiter(log *slog.Logger) (*ratelimit.Limiter, error) {
	return ratelimit.New(h.RedisURL, log)
}

// CheckRedis checks that the Redis server answers.
func (h *HTTP) CheckRedis(ctx context.Context) error {
	l, err := h.Limiter(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	return errors.Join(l.Ping(ctx), l.Close())
}

func (h *HTTP) rates() httpapi.Rates {
	return httpapi.Rates{
		Auth: h.RateLimitAuth, Address: h.RateLimitAddress, User: h.RateLimitUser, Key: h.RateLimitKey, Store: h.RateLimitStore,
		Database: h.RateLimitDatabase,
	}
}

func (h *HTTP) proxies() (httpapi.Proxies, error) {
	networks, err := parseNetworks(h.TrustedProxies)
	for _, n := range networks {
		if n.Bits() == 0 {
			return httpapi.Proxies{}, fmt.Errorf("must not be %s: whoever comes would be believed", n)
		}
	}
	return httpapi.Proxies{Networks: networks, Header: h.ProxyHeader}, err
}

func (h *HTTP) cors() httpapi.CORS {
	return httpapi.CORS{Origins: h.CORSOrigins, Credentials: h.CORSCredentials}
}

// isContact reports whether s can be a Contact of security.txt (RFC 9116, section 2.5.3).
func isContact(s string) bool {
	u, err := url.Parse(s)
	if err != nil || s != u.String() {
		return false
	}
	switch u.Scheme {
	case "https":
		return u.Host != "" && u.User == nil
	case "mailto":
		address, _, _ := strings.Cut(u.Opaque, "?")
		return mail.IsBareAddress(address)
	case "tel":
		return u.Opaque != ""
	default:
		return false
	}
}

func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func parseNetworks(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("%q is not a network such as 10.0.0.0/8", s)
		}
		out = append(out, p)
	}
	return out, nil
}
