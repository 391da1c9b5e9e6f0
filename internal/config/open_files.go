package config

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// fileShares divides the open files of this process. Without it one part could use all of
// them, and the listener could accept no connection.
type fileShares struct {
	limit           uint64 // of the operating system; 0: no limit
	Embedded        int    // embedded store databases open at once
	ConnsPerStore   int    // connections of each
	Clients         int    // connections of clients; 0: no limit
	Wanted          uint64 // the limit that needs no reduction
	embeddedLowered bool
}

const (
	// reservedFiles are for the master, tenant database servers, Redis, mail,
	// migrations and the process's own files.
	reservedFiles = 512
	// LeastClients is the number of client connections below which a warning is logged.
	LeastClients = 1024
)

// filesPerStore returns the number of files of an embedded database: each connection
// has the database and its write-ahead log open, and all share the log's index.
func filesPerStore(conns int) int { return 2*conns + 1 }

// ShareFiles divides limit: at most half for embedded stores, at most a quarter in
// reserve, the rest for clients. Under a low limit embedded stores first get fewer
// connections, and then fewer of them are kept open.
func ShareFiles(limit uint64, maxEmbedded, connsPerStore int) fileShares {
	s := fileShares{limit: limit, Embedded: maxEmbedded, ConnsPerStore: connsPerStore}
	full := maxEmbedded * filesPerStore(connsPerStore)
	s.Wanted = uint64(max(2*full, full+reservedFiles+LeastClients)) //nolint:gosec // not negative
	if limit == 0 || limit > 1<<30 {
		s.limit = 0
		return s
	}
	all := int(limit)
	for s.ConnsPerStore > 2 && maxEmbedded*filesPerStore(s.ConnsPerStore) > all/2 {
		s.ConnsPerStore--
	}
	s.Embedded = max(1, min(maxEmbedded, all/2/filesPerStore(s.ConnsPerStore)))
	s.embeddedLowered = s.Embedded < maxEmbedded
	s.Clients = max(1, all-s.Embedded*filesPerStore(s.ConnsPerStore)-min(reservedFiles, all/4))
	return s
}

// FileShares returns the shares of this process, whose limit Go has raised as far
// as allowed.
func (c *Config) FileShares() fileShares {
	return ShareFiles(openFileLimit(), c.MaxEmbedded, c.ConnsPerStore)
}

// Warn logs what a low limit restricts.
func (s fileShares) Warn(ctx context.Context, log *slog.Logger) {
	switch {
	case s.embeddedLowered:
		log.WarnContext(ctx, "fewer embedded stores are kept open than configured: the limit of open files is low; raise it (ulimit -n, LimitNOFILE=)",
			"open_files", s.limit, "wanted", s.Wanted, "embedded_open", s.Embedded, "connections_per_embedded_store", s.ConnsPerStore, "client_connections", s.Clients)
	case s.limit != 0 && s.Clients < LeastClients:
		log.WarnContext(ctx, "few clients can be connected at once: the limit of open files is low; raise it (ulimit -n, LimitNOFILE=)",
			"open_files", s.limit, "wanted", s.Wanted, "client_connections", s.Clients)
	}
}

// Check describes the shares, as an error if the limit is too low.
func (s fileShares) Check() (string, error) {
	if s.limit == 0 {
		return "no limit", nil
	}
	text := fmt.Sprintf("the limit is %d: %d embedded stores of %d connections each, and %d clients' connections", s.limit, s.Embedded, s.ConnsPerStore, s.Clients)
	if s.embeddedLowered || s.Clients < LeastClients {
		return "", errors.New(text)
	}
	return text, nil
}
