package app_test

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/stoahq/stoa/internal/httpapi"
	"github.com/stoahq/stoa/internal/httpapi/openapitest"
)

// updateExamples writes the examples of the OpenAPI document from the exchanges of the run:
// go test ./internal/app -short -update-examples. A run of some tests replaces the examples
// of what these call.
var updateExamples = flag.Bool("update-examples", false, "write the examples of the OpenAPI document")

// These run only the test that is a command of stoa.
const (
	onlyCommandProcess           = "^TestCommandProcess$"
	onlyDocumentedCommandProcess = "^TestDocumentedCommandProcess$"
)

const examplesFile = "../httpapi/examples.json"

// TestMain checks each JSON answer of the API that a test receives against the OpenAPI
// document. One that differs fails the run.
func TestMain(m *testing.M) {
	flag.Parse()
	if run := flag.Lookup("test.run").Value.String(); run == onlyCommandProcess || run == onlyDocumentedCommandProcess {
		os.Exit(m.Run()) // a command of stoa, which calls no server: the document would take a second of each
	}
	raw, err := httpapi.OpenAPI(httpapi.Config{BaseURL: "http://localhost:3000", BaseDomain: "localhost", Development: true, Sandbox: true})
	if err != nil {
		panic(err)
	}
	document, err := openapitest.New(raw)
	if err != nil {
		panic(err)
	}
	examples := openapitest.NewExamples()
	var mu sync.Mutex
	wrong := map[string]bool{}
	http.DefaultTransport = openapitest.Transport{RoundTripper: http.DefaultTransport, Document: document, Examples: examples, Wrong: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		wrong[err.Error()] = true
	}}
	code := m.Run()
	if *updateExamples {
		writeExamples(examples)
	}
	for err := range wrong {
		fmt.Fprintln(os.Stderr, "not as in the OpenAPI document:", err)
		code = 1
	}
	os.Exit(code)
}

func writeExamples(examples *openapitest.Examples) {
	earlier, err := os.ReadFile(examplesFile)
	if err == nil {
		earlier, err = examples.Merge(earlier)
	}
	if err == nil {
		err = os.WriteFile(examplesFile, earlier, 0o644)
	}
	if err != nil {
		panic(err)
	}
}
