package masterdb

import (
	"path/filepath"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
)

// Plaintext lists the hosts that a connection to this master may go to without
// TLS: all, unless sslmode says otherwise, since PostgreSQL's default (prefer)
// goes on without. A Unix socket is none, nor is a file, and of a URL that
// cannot be read Open complains.
func Plaintext(url string) []string {
	if !isPostgres(url) {
		return nil
	}
	cfg, err := pgconn.ParseConfig(url)
	if err != nil {
		return nil
	}
	var hosts []string
	add := func(f pgconn.FallbackConfig) {
		if f.TLSConfig == nil && !filepath.IsAbs(f.Host) && !slices.Contains(hosts, f.Host) {
			hosts = append(hosts, f.Host)
		}
	}
	add(pgconn.FallbackConfig{Host: cfg.Host, TLSConfig: cfg.TLSConfig})
	for _, f := range cfg.Fallbacks {
		add(*f)
	}
	return hosts
}
