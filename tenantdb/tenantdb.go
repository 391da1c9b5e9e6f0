// Package tenantdb connects to the tenant databases: one per store, on SQLite,
// PostgreSQL or MySQL/MariaDB. It contains the encrypted credentials, the
// connection manager with its leases, the guarded dialer and the schema migrations
// of one tenant. The queries on the tables are not part of it.
package tenantdb

// EngineName is the kind of server behind a tenant database.
type EngineName string

// The engines. MariaDB is MySQL. Supabase is chosen by the kind of the credentials;
// DB.Engine of such a database is PostgreSQL.
const (
	SQLite     EngineName = "sqlite"
	PostgreSQL EngineName = "postgresql"
	MySQL      EngineName = "mysql"
	Supabase   EngineName = "supabase"
)
