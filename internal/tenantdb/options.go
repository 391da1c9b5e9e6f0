package tenantdb

import (
	"log/slog"
	"time"

	"github.com/stoahq/stoa/internal/ratelimit"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tracing"
)

// Options configure a Manager: how much it keeps open and how long it waits.
type Options struct {
	DataDir          string        // folder of the embedded databases
	MaxOpen          int           // maximum of open pools, leased ones included; default 2000
	MaxEmbedded      int           // maximum of open embedded databases, leased ones included; default 200
	ConnsPerServer   int           // maximum of connections to one database server; default 90 of a server's usual 100
	ConnsPerStore    int           // maximum of connections of one store; default 8, minimum 2, which a migration needs
	ConnsPerEmbedded int           // the same for an embedded database; default ConnsPerStore
	IdleTimeout      time.Duration // time after which an unused pool or connection is closed; default 5 min
	OpenTimeout      time.Duration // maximum duration of opening a pool; default 10 s
	WaitTimeout      time.Duration // maximum wait for a connection of the store; default 5 s
	StatementTimeout time.Duration // maximum duration of a statement or transaction of a lease; default 10 s
	Cooldown         time.Duration // how long an open circuit breaker refuses calls; default 5 s
	ServeStale       time.Duration // maximum age of cached credentials, which are used while the master is unreachable; default 1 h
	Dialer           dial.Dialer
	Custom           *CustomMigrations        // the operator's migrations; nil if there are none
	Supabase         credential.SupabaseRules // hosts, ports and certificate authorities of Supabase
	Managed          *credential.Server       // where managed databases are created; nil: embedded, in DataDir
	Memory           *ratelimit.ByteBudget    // limits the memory of answers; nil: no limit
	Log              *slog.Logger             // receives panics of drivers; default slog.Default()
	Tracer           *tracing.Tracer          // makes the spans of statements; nil: they have none
	sweepInterval    time.Duration
	spareFiles       func() // closes unused databases when the process can open no more files
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
