// Command errorpages writes the documents on error codes into the folder that its argument
// names. `make generate` runs it.
package main

import (
	"log"
	"os"
	"path/filepath"

	"github.com/stoahq/stoa/internal/httpapi"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: errorpages FOLDER")
	}
	if err := write(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func write(folder string) error {
	if err := os.RemoveAll(folder); err != nil { //nolint:gosec // the folder is the argument of whoever runs this
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil { //nolint:gosec // documents are public
		return err
	}
	for name, text := range httpapi.ErrorPages() {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil { //nolint:gosec // documents are public
			return err
		}
	}
	return nil
}
