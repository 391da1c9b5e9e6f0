// Package tenantdb connects to the tenant databases: one per store, on SQLite,
// PostgreSQL or MySQL/MariaDB. It contains the encrypted credentials, the
// connection manager with its leases, the guarded dialer and the schema migrations
// of one tenant. The queries on the tables are not part of it.
package tenantdb
