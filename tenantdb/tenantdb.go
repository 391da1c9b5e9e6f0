// Package tenantdb reaches the tenant databases: one per store, on SQLite,
// PostgreSQL or MySQL/MariaDB. It owns the encrypted credentials, the
// connection manager with its leases, the outbound dialer and the schema
// migrations of one tenant. What the tables mean is package shop's business.
package tenantdb

// EngineName is the kind of server behind a tenant database.
type EngineName string

// The tenant engines. MariaDB counts as MySQL. Supabase is chosen by the kind of
// the credentials: its databases are PostgreSQL and say so in DB.Engine.
const (
	SQLite     EngineName = "sqlite"
	PostgreSQL EngineName = "postgresql"
	MySQL      EngineName = "mysql"
	Supabase   EngineName = "supabase"
)
