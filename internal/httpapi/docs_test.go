package httpapi

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestErrorPagesAreFresh compares the documents on error codes with the list of codes.
func TestErrorPagesAreFresh(t *testing.T) {
	t.Parallel()
	folder := documentPath(t, "docs/errors")
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(folder, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[f.Name()] = string(text)
	}
	if diff := cmp.Diff(ErrorPages(), found); diff != "" {
		t.Errorf("run make generate: docs/errors differs (-code +document):\n%s", diff)
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
