package tenantdb

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Structure describes the schema of a database. It maps each part, such as
// "column products.slug", to its definition.
type Structure map[string]string

//go:embed structure
var structures embed.FS

// Drift lists the differences between the structure s and the expected one:
// parts that are missing, parts whose definition differs and, if extras is set,
// parts that are not expected. The list is sorted.
func (s Structure) Drift(expected Structure, extras bool) []string {
	var drift []string
	for what, want := range expected {
		switch got, ok := s[what]; {
		case !ok && hasTable(s, what):
			drift = append(drift, what+" is missing")
		case ok && got != want:
			drift = append(drift, fmt.Sprintf("%s is %q, want %q", what, got, want))
		}
	}
	for what := range s {
		if _, ok := expected[what]; !ok && extras && hasTable(expected, what) {
			drift = append(drift, what+" should not be there")
		}
	}
	slices.Sort(drift)
	return drift
}

// hasTable reports whether s has the table of a part, or the part is a table
// itself. Drift does not list the parts of a missing table.
func hasTable(s Structure, what string) bool {
	_, ok := s["table "+tableOf(what)]
	return ok || strings.HasPrefix(what, "table ")
}

func tableOf(what string) string {
	_, name, _ := strings.Cut(what, " ")
	table, _, _ := strings.Cut(name, ".")
	return table
}

// Expected returns the structure that the built-in migrations create on a
// server's engine. The versions of a server report most of it in the same way;
// the rest is omitted: see Structure.
func Expected(engine credential.EngineName) (Structure, error) {
	var s Structure
	text, err := structures.ReadFile("structure/" + registered[engine].dialect.folder + ".json")
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	return s, err
}

// part is a row of dialect.parts.
type part struct {
	What string `max:"400"` // two or three names
	Made string `max:"4000"`
}

// maxParts limits the number of parts of a schema that are read. Stoa's own
// schema has about 200.
const maxParts = 20_000

// displayWidth matches the display width that MariaDB reports for an integer
// type and MySQL does not.
var displayWidth = regexp.MustCompile(`^(smallint|mediumint|int|bigint)\(\d+\)`)

// Structure reads the current schema of the database, without the version
// tables, the marker table and those of a move.
func (db *DB) Structure(ctx context.Context) (Structure, error) { return db.structure(ctx, db.Select) }

// Structure does the same as DB.Structure in the snapshot.
func (s *Snapshot) Structure(ctx context.Context) (Structure, error) {
	return s.db.structure(ctx, s.Select)
}

func (db *DB) structure(ctx context.Context, read func(ctx context.Context, dst any, query string, args ...any) error) (Structure, error) {
	var parts []part
	query := `SELECT substr(what, 1, 401) AS what, substr(made, 1, 4001) AS made FROM (` + db.dialect.parts + `) parts LIMIT ?`
	if err := read(ctx, &parts, query, maxParts+1); err != nil {
		return nil, err
	}
	if len(parts) > maxParts {
		return nil, db.wrap(&contentError{reason: fmt.Sprintf("the schema has more than %d parts", maxParts)})
	}
	s := Structure{}
	for _, p := range parts {
		s[p.What] = strings.TrimSpace(displayWidth.ReplaceAllString(p.Made, "$1"))
	}
	maps.DeleteFunc(s, func(what, _ string) bool {
		table := tableOf(what)
		return table == VersionTable || table == CustomVersionTable || table == MarkerTable || table == MoveControlTable || table == MoveJournalTable
	})
	return s, nil
}
