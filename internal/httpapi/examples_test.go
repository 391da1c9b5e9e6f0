package httpapi

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/httpapi/openapitest"
)

// withoutExample are the answers that no end-to-end test receives, with the reason.
var withoutExample = map[string]string{
	"provisioning.retry 202":     "the tests wait for the end of each retry",
	"supabase.createProject 200": "a project takes longer than a request",
	"stripe.webhook request":     "the event is the provider's",
	"stripe.webhook 200":         "the provider's stand-in receives the answer",
}

// TestExamples checks that each JSON request and each JSON answer of success has an example,
// which fits its schema and holds nothing of a test's machine.
func TestExamples(t *testing.T) {
	t.Parallel()
	raw, err := OpenAPI(allRoutes())
	if err != nil {
		t.Fatal(err)
	}
	document, err := openapitest.New(raw)
	if err != nil {
		t.Fatal(err)
	}
	var examples map[string]openapitest.Example
	if err := json.Unmarshal(examplesJSON, &examples); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, op := range operationsOf(newAPI(Domains{}, allRoutes()).huma.OpenAPI()) {
		known[op.OperationID] = true
		if op.RequestBody != nil && op.RequestBody.Content[jsonType] != nil {
			name := op.OperationID + " request"
			switch sent := examples[op.OperationID].Request; {
			case sent == nil && withoutExample[name] == "":
				t.Errorf("%s has no example", name)
			case sent != nil:
				if err := document.CheckRequest(op.Method, op.Path, sent); err != nil {
					t.Error(err)
				}
			}
		}
		for status, response := range op.Responses {
			if status[0] != '2' || response.Content[jsonType] == nil {
				continue
			}
			name := op.OperationID + " " + status
			got, there := examples[op.OperationID].Responses[status]
			if there == (withoutExample[name] != "") {
				t.Errorf("%s has an example: %v, exception: %q", name, there, withoutExample[name])
			}
			if !there {
				continue
			}
			code, _ := strconv.Atoi(status)
			if err := document.Check(op.Method, op.Path, code, http.Header{"Content-Type": {jsonType}}, got); err != nil {
				t.Error(err)
			}
		}
	}
	for id := range examples {
		if !known[id] {
			t.Errorf("there is no operation %s", id)
		}
	}
	for _, foreign := range []string{`127\.0\.0\.1`, `/tmp/`, `eyJ[A-Za-z0-9]`, `stoa_live_[A-Z2-7]{8,}`, `://[^/"@:…]+:[^/"@…]+@`, `localhost:\d`} {
		if found := regexp.MustCompile(foreign).Find(examplesJSON); found != nil {
			t.Errorf("the examples hold %s", found)
		}
	}
	if size := len(examplesJSON); size > 400<<10 || strings.Count(string(examplesJSON), "\n") < 1000 {
		t.Errorf("the examples have %d bytes", size)
	}
}
