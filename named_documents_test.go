package stoa_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// namedDocument matches the path of a document in a comment or message.
var namedDocument = regexp.MustCompile(`\bdocs/[a-zA-Z0-9/_-]+\.(?:md|cfg)\b`)

// TestNamedDocumentsExist checks that each document that the code, a script or a file of
// deploy names is there. Documents move and are numbered anew.
func TestNamedDocumentsExist(t *testing.T) {
	t.Parallel()
	named := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || path == "bin" || path == "screenshots"):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) == ".md" || !namesDocuments(path):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, document := range namedDocument.FindAllString(string(text), -1) {
			named++
			if _, err := os.Stat(document); err != nil {
				t.Errorf("%s names %s, which is not there", path, document)
			}
		}
		return nil
	})
	if err != nil || named < 20 {
		t.Errorf("%d documents are named, want many more: %v", named, err)
	}
}

func namesDocuments(path string) bool {
	switch filepath.Ext(path) {
	case ".go", ".yaml", ".json", ".service", ".tpl", ".sql", ".ts", ".mjs":
		return true
	}
	return filepath.Base(path) == "Makefile" || strings.HasPrefix(path, "scripts"+string(filepath.Separator))
}
