package tenantdb

import (
	"database/sql"
	"io/fs"
	"slices"

	"github.com/pressly/goose/v3"
)

// dialect is what differs between the engines and is data: texts of SQL, names and what
// the server can do. What differs and is code is in Engine.
type dialect struct {
	// folder is the name of the folder with the migrations in Migrations, of the folder
	// with the operator's own, and of the file with their structure.
	folder string
	// migrations is goose's name of the dialect.
	migrations goose.Dialect
	// driver is the name by which sqlx knows how placeholders are written.
	driver string
	// cutText and cutAny are the SQL of CutText and CutAny. %[1]s is the expression and %[2]s
	// the limit.
	cutText, cutAny string
	// isolation is the level of a transaction, and snapshot that of a snapshot. The zero
	// value is the server's default.
	isolation, snapshot sql.IsolationLevel
	// beginSnapshot begins a snapshot where no isolation level does.
	beginSnapshot string
	// embedded means that the database is a file of this process: there is no server,
	// and no setting of one that could change a session.
	embedded bool
	// native means that the driver's connection is a *pgx.Conn, which reads a row with
	// less work than database/sql.
	native bool
	// sharedNames means that indexes, sequences and types share one set of names with
	// tables, and foldsNames that some servers do not tell names of tables apart by the
	// case of their letters.
	sharedNames, foldsNames bool
	// marker creates MarkerTable if there is none.
	marker string
	// selfTest creates the table of a self-test, whose name replaces %s. It is empty if
	// there is nothing to test. selfTests lists up to 100 of these tables.
	selfTest, selfTests string
	// parts lists the parts of the schema in the columns of part. It omits names that the
	// server generates and texts that differ between its versions.
	parts string
	// archive is the SQL of archives.
	archive ArchiveSQL
	// recorder is the SQL of moves.
	recorder Recorder

	texts queryTexts
}

// builtin returns the built-in migrations.
func (d *dialect) builtin() (fs.FS, error) { return fs.Sub(Migrations, "migrations/"+d.folder) }

// dialectFolders returns the sorted names of all dialects' folders.
func dialectFolders() []string {
	var names []string
	for _, r := range registered {
		names = append(names, r.dialect.folder)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
