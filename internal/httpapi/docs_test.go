package httpapi

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
)

// TestDocumentsListEveryCode compares the table of docs/api.md with the mapping
// from codes to statuses.
func TestDocumentsListEveryCode(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(documentPath(t, "docs/api.md"))
	if err != nil {
		t.Fatal(err)
	}
	listed := map[stoa.Code]int{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (\\d{3}) \\|").FindAllStringSubmatch(string(text), -1) {
		if listed[stoa.Code(row[1])], err = strconv.Atoi(row[2]); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(statuses, listed); diff != "" {
		t.Errorf("httpapi and docs/api.md differ (-code +document):\n%s", diff)
	}
}

// documentPath finds a document in the folder of this package or one above.
func documentPath(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
		if dir == filepath.Dir(dir) {
			t.Fatalf("no folder above has %s", name)
		}
		dir = filepath.Dir(dir)
	}
}
