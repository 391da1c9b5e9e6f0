package managed

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Orphan is a managed database that belongs to no store. Only its role may be left.
type Orphan struct {
	Name   string                // of the database and its role, or the store id
	Engine credential.EngineName // of the database
	Place  string                // the server or the file, for display
}

// comparedAtOnce is how many databases are compared with the records at a time.
const comparedAtOnce = 5000

// Orphans yields the managed databases of this installation, in the data directory and on
// the operator's server, that have no record. An error ends the sequence. It changes
// nothing. In memory it holds comparedAtOnce files and one more folder's of the data
// directory, and the names of all databases on the server.
func (d *Databases) Orphans(ctx context.Context) iter.Seq2[Orphan, error] {
	return func(yield func(Orphan, error) bool) {
		var found []Orphan
		for files, err := range d.tenants.EmbeddedFiles() {
			if err != nil {
				yield(Orphan{}, err)
				return
			}
			for _, f := range files {
				found = append(found, Orphan{Name: f.Store.String(), Engine: credential.SQLite, Place: f.Path})
			}
			if len(found) >= comparedAtOnce {
				if !d.yieldOrphans(ctx, found, yield) {
					return
				}
				found = nil
			}
		}
		if !d.yieldOrphans(ctx, found, yield) || d.server() == nil {
			return
		}
		found, err := d.made(ctx)
		if err != nil {
			yield(Orphan{}, fmt.Errorf("%s: %w", d.server(), err))
			return
		}
		for part := range slices.Chunk(found, comparedAtOnce) {
			if !d.yieldOrphans(ctx, part, yield) {
				return
			}
		}
	}
}

// yieldOrphans yields those of the databases that have no record, and reports whether to go
// on. Credentials are stored before a database is created: reading the records after the
// databases were found excludes new ones.
func (d *Databases) yieldOrphans(ctx context.Context, found []Orphan, yield func(Orphan, error) bool) bool {
	recorded, err := d.recorded(ctx, found)
	if err != nil {
		yield(Orphan{}, err)
		return false
	}
	for _, o := range found {
		if !recorded[o.Name] && !yield(o, nil) {
			return false
		}
	}
	return true
}

// recorded returns which of the databases belong to a store, or to a move that has not
// ended.
func (d *Databases) recorded(ctx context.Context, databases []Orphan) (map[string]bool, error) {
	all := make([]string, len(databases))
	for i, o := range databases {
		all[i] = o.Name
	}
	list, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	in := ` IN (SELECT value FROM json_each($1))`
	if d.master.Engine == masterdb.Postgres {
		in = ` IN (SELECT json_array_elements_text(CAST($1 AS json)))`
	}
	var names []string
	err = d.master.Select(ctx, &names, `SELECT database_name FROM store_databases WHERE kind = 'managed' AND database_name`+in+`
		UNION SELECT source_name FROM store_moves WHERE finished_at IS NULL AND source_name`+in+`
		UNION SELECT target_name FROM store_moves WHERE finished_at IS NULL AND target_name`+in, string(list))
	recorded := make(map[string]bool, len(names))
	for _, name := range names {
		recorded[name] = true
	}
	return recorded, err
}

// made returns the databases and roles of this installation on the operator's server.
func (d *Databases) made(ctx context.Context) (found []Orphan, err error) {
	prefix, err := d.prefix(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	err = d.withAdmin(func(h host, db *tenantdb.DB) (err error) {
		names, err = h.list(ctx, db, prefix)
		return err
	})
	for _, name := range names {
		if databaseName.MatchString(name) {
			found = append(found, Orphan{Name: name, Engine: d.server().Admin.Engine, Place: d.server().String()})
		}
	}
	return found, err
}

// DropOrphan deletes an orphan, unless it has been assigned to a store since it
// was found.
func (d *Databases) DropOrphan(ctx context.Context, s Orphan) error {
	var owners int
	if err := d.master.Get(ctx, &owners, `SELECT (SELECT count(*) FROM store_databases WHERE database_name = $1)
		+ (SELECT count(*) FROM store_moves WHERE finished_at IS NULL AND (source_name = $1 OR target_name = $1))`, s.Name); err != nil {
		return err
	}
	if owners > 0 {
		return fmt.Errorf("%s belongs to a store now", s.Name)
	}
	if s.Engine.Embedded() {
		id, err := stoa.ParseID[stoa.StoreID](s.Name)
		if err != nil {
			return err
		}
		return d.tenants.RemoveEmbedded(id)
	}
	if d.server() == nil || !databaseName.MatchString(s.Name) {
		return fmt.Errorf("%.80q is not on the operator's server", s.Name)
	}
	return d.withAdmin(func(h host, db *tenantdb.DB) error { return h.drop(ctx, db, s.Name) })
}
