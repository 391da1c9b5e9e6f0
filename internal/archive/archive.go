// Package archive reads and writes archives: the rows of one store's tables in a form
// that is the same on every engine, compressed and encrypted. It copies a database into an
// archive from one consistent snapshot, loads an archive into an empty database of any
// engine, compares databases by checksums, and keeps archives in a folder or in object
// storage. docs/archive-format.md describes the format.
//
// It does not check permissions: its callers do.
package archive

import (
	"regexp"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// FormatVersion is the version of the format that this release writes. It reads all
// versions up to this one.
const FormatVersion = 1

// These limits hold for every archive, so that reading one takes bounded memory.
const (
	maxTables  = 256
	maxColumns = 256
	maxName    = 63      // bytes of the name of a table or column
	maxListed  = 500     // tables that an archive names as not included
	maxHead    = 1 << 20 // bytes of the manifest's head
	maxSummary = 4 << 10 // bytes of the summary of a table, and of the archive
	maxRow     = 8 << 20 // bytes of an encoded row: a server's answer may not be longer
	blockSize  = 1 << 20 // bytes after which a block of rows ends
	maxBlock   = blockSize + maxRow
)

// format is the outer form of the archives.
var format = container.Format{Name: "stoa archive", Version: FormatVersion, MaxRecord: maxBlock}

// Head is the first part of the manifest: what the archive contains, as far as it is known
// before the rows are read.
type Head struct {
	Store         stoa.StoreID          `json:"store"`
	SchemaVersion int64                 `json:"schema_version"`
	OwnVersion    int64                 `json:"own_version"` // of the operator's custom migrations; 0: none
	Engine        credential.EngineName `json:"engine"`
	EngineVersion string                `json:"engine_version"`
	Release       string                `json:"release"` // of the Stoa that wrote the archive
	SnapshotAt    time.Time             `json:"snapshot_at"`
	Tables        []Table               `json:"tables"` // in the order in which they are loaded
	// NotIncluded names tables, and columns of Stoa's tables as table.column, that Stoa
	// did not create. Their content is not in the archive.
	NotIncluded []string `json:"not_included,omitempty"`
	// Omitted is the number of further such names.
	Omitted int `json:"omitted,omitempty"`
}

// Table describes one table of an archive.
type Table struct {
	Name    string   `json:"name"`
	Columns []Column `json:"columns"`
	Key     []string `json:"key"`
}

// Column describes one column of an archive.
type Column struct {
	Name     string              `json:"name"`
	Type     tenantdb.ColumnType `json:"type"`
	Scale    int                 `json:"scale,omitempty"` // of a decimal
	Nullable bool                `json:"nullable,omitempty"`
	// Self is set for a column that references its own table. It is loaded after the
	// table's rows.
	Self bool `json:"self,omitempty"`

	// References names the table that a foreign key leads to. It is known of the tables of
	// Stoa's schema only; archives do not contain it.
	References string `json:"-"`

	maxChars int // of a text in Stoa's schema; 0: unknown
}

// Summary describes the rows of a table or, without a table, of an archive.
type Summary = container.Summary

// links returns the indexes of the columns that a link has: the key, then the references to
// the table itself. It returns nil for a table without such references.
func (t Table) links() []int {
	var selves []int
	for i, c := range t.Columns {
		if c.Self {
			selves = append(selves, i)
		}
	}
	if selves == nil {
		return nil
	}
	return append(t.keyColumns(), selves...)
}

// keyColumns returns the indexes of the key's columns.
func (t Table) keyColumns() []int {
	var key []int
	for _, name := range t.Key {
		key = append(key, slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == name }))
	}
	return key
}

// columnNames returns the names of all columns.
func (t Table) columnNames() []string {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = c.Name
	}
	return names
}

// pick returns the columns with these indexes.
func (t Table) pick(indexes []int) []Column {
	columns := make([]Column, len(indexes))
	for i, at := range indexes {
		columns[i] = t.Columns[at]
	}
	return columns
}

// fromTable converts a table of the schema.
func fromTable(t tenantdb.Table) Table {
	out := Table{Name: t.Name, Key: t.Key}
	for _, c := range t.Columns {
		out.Columns = append(out.Columns, Column{Name: c.Name, Type: c.Type, Scale: c.Scale, Nullable: c.Nullable, Self: c.References == t.Name, References: c.References, maxChars: c.MaxChars})
	}
	return out
}

// name matches the names of tables and columns. They go into SQL without quotes.
var name = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

var types = []tenantdb.ColumnType{
	tenantdb.TypeUUID, tenantdb.TypeText, tenantdb.TypeInteger, tenantdb.TypeBoolean,
	tenantdb.TypeTimestamp, tenantdb.TypeDecimal, tenantdb.TypeJSON, tenantdb.TypeBytes,
}

// check returns an error if the head is not one that a writer makes.
func (h Head) check() error {
	if len(h.Tables) > maxTables || len(h.NotIncluded) > maxListed || h.SchemaVersion < 1 || h.OwnVersion < 0 || h.Omitted < 0 || len(h.EngineVersion) > 255 || len(h.Release) > 255 {
		return container.Damaged("its manifest has a value out of range", nil)
	}
	seen := map[string]bool{}
	for _, t := range h.Tables {
		if seen[t.Name] {
			return container.Damaged("its manifest names a table twice", nil)
		}
		seen[t.Name] = true
		if err := t.check(); err != nil {
			return err
		}
	}
	return nil
}

func (t Table) check() error {
	if !name.MatchString(t.Name) || len(t.Columns) == 0 || len(t.Columns) > maxColumns || len(t.Key) == 0 || len(t.Key) > len(t.Columns) {
		return container.Damaged("its manifest describes a table that cannot exist", nil)
	}
	seen := map[string]bool{}
	for _, c := range t.Columns {
		if !name.MatchString(c.Name) || seen[c.Name] || !slices.Contains(types, c.Type) || c.Scale < 0 || c.Scale > maxScale || c.Self && !c.Nullable {
			return container.Damaged("its manifest describes a column that cannot exist", nil)
		}
		seen[c.Name] = true
	}
	for i, key := range t.Key {
		if !seen[key] || slices.Contains(t.Key[:i], key) {
			return container.Damaged("its manifest describes a key that cannot exist", nil)
		}
	}
	return nil
}
