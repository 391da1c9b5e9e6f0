// Command generate writes the client's operations: a method for each operation of an OpenAPI
// document. It also writes the document as oapi-codegen needs it for the client's types.
// `make generate` runs it.
package main

import (
	"encoding/json"
	"flag"
	"log"
	"os"
)

func main() {
	from := flag.String("document", "", "the OpenAPI document")
	operations := flag.String("operations", "", "the Go file of the operations")
	prepared := flag.String("prepared", "", "the document for oapi-codegen")
	flag.Parse()
	if err := generate(*from, *operations, *prepared); err != nil {
		log.Fatal(err)
	}
}

func generate(from, operations, prepared string) error {
	raw, err := os.ReadFile(from) //nolint:gosec // the file is the argument of whoever runs this
	if err != nil {
		return err
	}
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		return err
	}
	code, err := d.code()
	if err != nil {
		return err
	}
	if err := os.WriteFile(operations, code, 0o644); err != nil { //nolint:gosec // source code is public
		return err
	}
	types, err := prepare(raw)
	if err != nil {
		return err
	}
	return os.WriteFile(prepared, types, 0o600) //nolint:gosec // the file is the argument of whoever runs this
}
