// Package tenantdb connects to the tenant databases: one per store, on SQLite,
// PostgreSQL or MySQL/MariaDB. It contains the encrypted credentials, the
// connection manager with its leases, the dialer that restricts addresses, and
// the schema migrations of one tenant. It does not contain the queries on the
// tables.
package tenantdb
