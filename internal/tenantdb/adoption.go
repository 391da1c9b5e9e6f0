package tenantdb

import (
	"context"
	"slices"
	"strings"
)

// Adoption says what a store would make in a database that holds tables of others.
type Adoption struct {
	Makes   []string // the tables that would be made
	Clashes []string // what is there under a name that the store needs
	Keeps   int      // tables that are there and stay as they are
}

// PlanAdoption compares the names of a store's tables and indexes with those in a database
// that Inspect has described. It changes nothing. A custom migration of the operator may
// need other names: it fails when they exist.
func (db *DB) PlanAdoption(ctx context.Context, in Inspection) (Adoption, error) {
	expected, err := Expected(db.Engine)
	if err != nil {
		return Adoption{}, err
	}
	a := Adoption{Makes: []string{VersionTable, MarkerTable}}
	if db.own != nil {
		a.Makes = append(a.Makes, CustomVersionTable)
	}
	var indexes []string
	for what := range expected {
		kind, name, _ := strings.Cut(what, " ")
		switch kind {
		case "table":
			a.Makes = append(a.Makes, name)
		case "index":
			_, name, _ = strings.Cut(name, ".")
			indexes = append(indexes, name)
		}
	}
	slices.Sort(a.Makes)
	there := in.Tables
	d := db.dialect
	if d.sharedNames {
		if there, err = db.takenNames(ctx, append(indexes, a.Makes...)); err != nil {
			return Adoption{}, err
		}
	}
	for _, name := range there {
		// The marker table alone is what an interrupted run leaves; see Mark.
		if name != MarkerTable && (slices.Contains(a.Makes, name) || d.sharedNames && slices.Contains(indexes, name) ||
			d.foldsNames && containsFold(a.Makes, name)) {
			a.Clashes = append(a.Clashes, name)
		}
	}
	for _, name := range in.Tables {
		if name != MarkerTable {
			a.Keeps++
		}
	}
	return a, nil
}

// containsFold compares names as a server does that keeps its tables in lower case.
func containsFold(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}

// takenNames returns which of the names the current schema has, on PostgreSQL. Each name is
// one of Stoa's own.
func (db *DB) takenNames(ctx context.Context, names []string) (taken []string, err error) {
	list := "('" + strings.Join(names, "', '") + "')"
	err = db.Select(ctx, &taken, `SELECT relname AS name FROM pg_catalog.pg_class
		WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()) AND relname IN `+list+`
		UNION SELECT typname FROM pg_catalog.pg_type
		WHERE typnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()) AND typname IN `+list+` ORDER BY 1`)
	return taken, err
}
