package app_test

import (
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/stoahq/stoa/internal/httpapi"
	"github.com/stoahq/stoa/internal/httpapi/openapitest"
)

// TestMain checks each JSON answer of the API that a test receives against the OpenAPI
// document. One that differs fails the run.
func TestMain(m *testing.M) {
	raw, err := httpapi.OpenAPI(httpapi.Config{BaseURL: "http://localhost:3000", BaseDomain: "localhost", Development: true, Sandbox: true})
	if err != nil {
		panic(err)
	}
	document, err := openapitest.New(raw)
	if err != nil {
		panic(err)
	}
	var mu sync.Mutex
	wrong := map[string]bool{}
	http.DefaultTransport = openapitest.Transport{RoundTripper: http.DefaultTransport, Document: document, Wrong: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		wrong[err.Error()] = true
	}}
	code := m.Run()
	for err := range wrong {
		fmt.Fprintln(os.Stderr, "not as in the OpenAPI document:", err)
		code = 1
	}
	os.Exit(code)
}
