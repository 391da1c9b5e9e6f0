// Package masterbackup writes the whole master database into an archive, from one consistent
// snapshot and while servers use it, and creates a master database from such an archive.
// docs/disaster-recovery.md says how an operator uses both.
//
// On PostgreSQL the archive has the rows of each table in the text format of COPY, on SQLite
// the database file. Both have the number and a checksum of each table's rows, with which a
// restore compares what it has stored. The archive has no keys: the values that the keyring
// has encrypted stay so.
//
// It does not check permissions: its callers do.
package masterbackup

import (
	"regexp"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
)

// FormatVersion is the version of the format that this release writes. It reads all
// versions up to this one.
const FormatVersion = 1

// These limits hold for every archive, so that reading one takes bounded memory.
const (
	maxTables  = 500
	maxColumns = 500
	maxKeys    = 1000
	maxListed  = 500
	maxHead    = 1 << 20 // bytes of the manifest's head
	maxSummary = 4 << 10 // bytes of the summary of a table, and of the archive
	blockSize  = 1 << 20 // bytes of a block of content
)

// format is the outer form of the archives.
var format = container.Format{Name: "stoa master", Version: FormatVersion, MaxRecord: blockSize}

// These are the kinds of records.
const (
	recordHead  = 'H' // JSON: Head
	recordData  = 'R' // a block of the current table's rows, or of the SQLite file
	recordTable = 'T' // JSON: container.Summary of the current table, which ends with it
	recordEnd   = 'E' // JSON: container.Summary of the archive
)

// Head is the first part of the manifest.
type Head struct {
	Engine        masterdb.Engine `json:"engine"`
	EngineVersion string          `json:"engine_version"`
	SchemaVersion int64           `json:"schema_version"`
	QueueVersion  int             `json:"queue_version"` // of the job queue's tables
	Release       string          `json:"release"`       // of the Stoa that wrote the archive
	SnapshotAt    time.Time       `json:"snapshot_at"`
	// Keys are the ids of the keys with which values of the database are encrypted.
	Keys      []string   `json:"keys"`
	Tables    []Table    `json:"tables"`
	Sequences []Sequence `json:"sequences,omitempty"` // of PostgreSQL
	// NotIncluded names tables and other objects that Stoa did not create. They are not in
	// the archive.
	NotIncluded []string `json:"not_included,omitempty"`
}

// Table describes one table of an archive.
type Table struct {
	Name    string   `json:"name"`
	Columns []string `json:"columns"`
}

// Sequence is a sequence and the last number that it has handed out.
type Sequence struct {
	Name string `json:"name"`
	Last int64  `json:"last"`
}

// Result describes an archive that was written or restored.
type Result struct {
	Head   Head                `json:"head"`
	Tables []container.Summary `json:"tables"`
	Total  container.Summary   `json:"total"`
}

// FileName returns the name of an archive in a storage. The names sort by time.
func FileName(at time.Time, id string) string {
	return NamePrefix + at.UTC().Format("20060102T150405Z") + "-" + id + ".stoa"
}

// NamePrefix begins the names of all archives of master databases in a storage.
const NamePrefix = "master/"

// name matches the names of tables and columns.
var name = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// check returns an error if the head is not one that a writer makes.
func (h Head) check() error {
	if h.Engine != masterdb.SQLite && h.Engine != masterdb.Postgres || h.SchemaVersion < 1 || h.QueueVersion < 1 || len(h.Tables) == 0 || len(h.Tables) > maxTables ||
		len(h.Sequences) > maxTables || len(h.Keys) > maxKeys || len(h.NotIncluded) > maxListed+1 || len(h.EngineVersion) > 255 || len(h.Release) > 255 {
		return container.Damaged("its manifest has a value out of range", nil)
	}
	seen := map[string]bool{}
	for _, t := range h.Tables {
		if seen[t.Name] || !name.MatchString(t.Name) || len(t.Columns) == 0 || len(t.Columns) > maxColumns {
			return container.Damaged("its manifest describes a table that cannot exist", nil)
		}
		seen[t.Name] = true
		for i, c := range t.Columns {
			if !name.MatchString(c) || slices.Contains(t.Columns[:i], c) {
				return container.Damaged("its manifest describes a column that cannot exist", nil)
			}
		}
	}
	for _, s := range h.Sequences {
		if !name.MatchString(s.Name) {
			return container.Damaged("its manifest describes a sequence that cannot exist", nil)
		}
	}
	return nil
}

// checkSchema returns an error if this release does not know the schema of the archive.
func (h Head) checkSchema(latest int64) error {
	if h.SchemaVersion > latest || h.QueueVersion > jobs.LatestVersion() {
		return stoa.Errorf(stoa.ArchiveTooNew, "The archive is of a master database with the schema version %d (job queue: %d), and this release of Stoa knows versions up to %d (%d). "+
			"Use the release that made it, %s, or a newer one.", h.SchemaVersion, h.QueueVersion, latest, jobs.LatestVersion(), h.Release)
	}
	return nil
}
