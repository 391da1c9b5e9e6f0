package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// fileShares divides the files that this process may have open. Without it one part
// could take all of them, and the listener could accept no connection.
type fileShares struct {
	limit           uint64 // of the operating system; 0: no limit
	embedded        int    // embedded store databases open at once
	connsPerStore   int    // connections of each
	clients         int    // connections of clients; 0: no limit
	wanted          uint64 // the limit with which nothing is lowered
	embeddedLowered bool
}

const (
	// reservedFiles are for the master, tenant database servers, Redis, mail,
	// migrations and the process's own files.
	reservedFiles = 512
	// leastClients is the number of client connections below which a warning is logged.
	leastClients = 1024
)

// filesPerStore returns the number of files of an embedded database: each connection
// has the database and its write-ahead log open, and all share the log's index.
func filesPerStore(conns int) int { return 2*conns + 1 }

// shareFiles divides limit: at most half for embedded stores, at most a quarter in
// reserve, the rest for clients. Under a low limit embedded stores first get fewer
// connections, and then fewer of them are kept open.
func shareFiles(limit uint64, maxEmbedded, connsPerStore int) fileShares {
	s := fileShares{limit: limit, embedded: maxEmbedded, connsPerStore: connsPerStore}
	full := maxEmbedded * filesPerStore(connsPerStore)
	s.wanted = uint64(max(2*full, full+reservedFiles+leastClients)) //nolint:gosec // not negative
	if limit == 0 || limit > 1<<30 {
		s.limit = 0
		return s
	}
	all := int(limit)
	for s.connsPerStore > 2 && maxEmbedded*filesPerStore(s.connsPerStore) > all/2 {
		s.connsPerStore--
	}
	s.embedded = max(1, min(maxEmbedded, all/2/filesPerStore(s.connsPerStore)))
	s.embeddedLowered = s.embedded < maxEmbedded
	s.clients = max(1, all-s.embedded*filesPerStore(s.connsPerStore)-min(reservedFiles, all/4))
	return s
}

// fileShares returns the shares of this process, whose limit Go has raised as far
// as allowed.
func (c *Config) fileShares() fileShares {
	return shareFiles(openFileLimit(), c.MaxEmbedded, c.ConnsPerStore)
}

// warn logs what a low limit restricts.
func (s fileShares) warn(ctx context.Context, log *slog.Logger) {
	switch {
	case s.embeddedLowered:
		log.WarnContext(ctx, "fewer embedded stores are kept open than configured: the limit of open files is low; raise it (ulimit -n, LimitNOFILE=)",
			"open_files", s.limit, "wanted", s.wanted, "embedded_open", s.embedded, "connections_per_embedded_store", s.connsPerStore, "client_connections", s.clients)
	case s.limit != 0 && s.clients < leastClients:
		log.WarnContext(ctx, "few clients can be connected at once: the limit of open files is low; raise it (ulimit -n, LimitNOFILE=)",
			"open_files", s.limit, "wanted", s.wanted, "client_connections", s.clients)
	}
}

// check describes the shares, as an error if the limit is too low.
func (s fileShares) check() (string, error) {
	if s.limit == 0 {
		return "no limit", nil
	}
	text := fmt.Sprintf("the limit is %d: %d embedded stores of %d connections each, and %d clients' connections", s.limit, s.embedded, s.connsPerStore, s.clients)
	if s.embeddedLowered || s.clients < leastClients {
		return "", errors.New(text)
	}
	return text, nil
}
