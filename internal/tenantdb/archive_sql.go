package tenantdb

import "strings"

// ArchiveSQL is what differs between the engines when the rows of a store's tables are read
// into an archive and written from one.
type ArchiveSQL struct {
	// Version is the expression of the server's version.
	Version string
	// TableNamed is the query for the name of the table that its argument names, if there is one.
	TableNamed string
	// Unsafe is the query for up to 10,000 tables that a snapshot does not cover. It is empty
	// if there can be none.
	Unsafe string
	// Referrers is the query for the tables that depend on others of Stoa's schema, by a foreign
	// key or by inheritance: the table's schema if it is another, its name, a column that has a
	// value where a row depends on one, and the table that it depends on.
	Referrers string
	// Quote is the character around a quoted name.
	Quote string
	// Bytes is the expression of the length in bytes of the text %s, and JSONText that of the
	// JSON column %s as a text.
	Bytes, JSONText string
	// Upsert is the clause of an INSERT that changes the rows that exist. The columns of the key
	// replace %s. Proposed is the expression of the new value of the column %s.
	Upsert, Proposed string
	// CopyIn means that DB.CopyIn inserts rows.
	CopyIn bool
}

// Quoted returns a name as it stands in a statement.
func (a ArchiveSQL) Quoted(name string) string {
	return a.Quote + strings.ReplaceAll(name, a.Quote, a.Quote+a.Quote) + a.Quote
}

// ArchiveSQL returns what is the engine's own when rows are written from an archive.
func (db *DB) ArchiveSQL() ArchiveSQL { return db.dialect.archive }

// ArchiveSQL returns what is the engine's own when rows are read into an archive.
func (s *Snapshot) ArchiveSQL() ArchiveSQL { return s.db.dialect.archive }
