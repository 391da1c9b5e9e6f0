package masterdb

import (
	"path/filepath"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
)

// Plaintext returns the hosts that a connection to this master may use without TLS. These
// are all hosts unless sslmode forbids it, because PostgreSQL's default (prefer) falls back
// to plain text. A Unix socket or a file is not counted. For a URL that cannot be parsed
// the result is empty; Open reports the error.
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
