package tenantdb

import (
	"fmt"
	"strings"
	"testing"
)

func TestQueryText(t *testing.T) {
	t.Parallel()
	query := `SELECT ` + CutAny("s.id", 37) + `, ` + CutText("coalesce(s.name, '?')", 5) + `, ` + CutText("s.slug", 3) + ` FROM stores s WHERE a = ` + `? AND b = ?`
	for name, want := range map[string]string{
		"postgres": `SELECT CAST(s.id AS varchar(37)), CAST(coalesce(s.name, '$1') AS varchar(5)), CAST(s.slug AS varchar(3)) FROM stores s WHERE a = $2 AND b = $3`,
		"mysql":    `SELECT substr(concat(s.id, ''), 1, 37), substr(coalesce(s.name, '?'), 1, 5), substr(s.slug, 1, 3) FROM stores s WHERE a = ? AND b = ?`,
		"sqlite":   `SELECT substr(concat(s.id, ''), 1, 37), substr(coalesce(s.name, '?'), 1, 5), substr(s.slug, 1, 3) FROM stores s WHERE a = ? AND b = ?`,
	} {
		for _, r := range registered {
			if r.dialect.folder != name {
				continue
			}
			for range 2 { // the second is kept
				if got := r.dialect.text(query); got != want {
					t.Errorf("%s: %s", name, got)
				}
			}
		}
	}
}

// TestQueryTextsAreLimited checks that queries which name ever new tables take no more memory,
// and that one of them is still right when all were forgotten.
func TestQueryTextsAreLimited(t *testing.T) {
	t.Parallel()
	d := &dialect{driver: "pgx"}
	long := "SELECT ?" + strings.Repeat(", ?", maxKeptQuery)
	if got := d.text(long); !strings.HasSuffix(got, fmt.Sprint(", $", maxKeptQuery+1)) {
		t.Error(got)
	}
	if _, kept := d.texts.get(long); kept {
		t.Errorf("a query of %d bytes is kept", len(long))
	}
	for i := range 3 * maxTexts {
		if got, want := d.text(fmt.Sprint("SELECT ? FROM t", i)), fmt.Sprint("SELECT $1 FROM t", i); got != want {
			t.Fatal(got)
		}
		kept := 0
		if i%100 == 0 {
			d.texts.kept.Range(func(any, any) bool { kept++; return true })
		}
		if kept > maxTexts {
			t.Fatalf("%d texts are kept", kept)
		}
	}
}

// TestPasswordsAreNotKept checks that no password of a database user stays in memory with the
// statement that sets it.
func TestPasswordsAreNotKept(t *testing.T) {
	t.Parallel()
	for driver, statement := range map[string]string{"pgx": `ALTER ROLE shop PASSWORD 'a verifier'`, "mysql": `ALTER USER shop IDENTIFIED BY 'a password?'`} {
		d := &dialect{driver: driver}
		if got := d.text(statement); got != statement {
			t.Error(got)
		}
		d.texts.kept.Range(func(key, _ any) bool {
			t.Errorf("%v is kept", key)
			return true
		})
	}
}

// TestQueryTextIsKept checks that a query that is repeated allocates nothing.
func TestQueryTextIsKept(t *testing.T) { //nolint:paralleltest // allocations of other tests would count
	query := `SELECT ` + CutAny("s.id", 37) + ` FROM stores s WHERE id = ?`
	postgresDialect.text(query)
	if n := testing.AllocsPerRun(100, func() { postgresDialect.text(query) }); n > 1 { // the key of the map
		t.Errorf("%g allocations", n)
	}
}
