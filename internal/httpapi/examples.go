package httpapi

import (
	_ "embed"
	"encoding/json"

	"github.com/danielgtaylor/huma/v2"
)

// examplesJSON has the examples by operation id. The end-to-end tests write it from real
// requests and answers: go test ./internal/app -short -update-examples.
//
//go:embed examples.json
var examplesJSON []byte

// example is what may be sent to an operation, and what it then answers, by status.
type example struct {
	Request   any            `json:"request"`
	Responses map[string]any `json:"responses"`
}

// addExamples adds the examples of JSON bodies to the document.
func addExamples(doc *huma.OpenAPI) {
	var examples map[string]example
	if err := json.Unmarshal(examplesJSON, &examples); err != nil {
		panic(err) // TestExamples
	}
	for _, op := range operationsOf(doc) {
		of := examples[op.OperationID]
		if op.RequestBody != nil && op.RequestBody.Content[jsonType] != nil && of.Request != nil {
			op.RequestBody.Content[jsonType].Example = of.Request
		}
		for status, response := range op.Responses {
			media := response.Content[jsonType]
			if media == nil || of.Responses[status] == nil {
				continue
			}
			own := *media // several statuses may share the content of one
			own.Example = of.Responses[status]
			content := make(map[string]*huma.MediaType, len(response.Content))
			for kind, m := range response.Content {
				content[kind] = m
			}
			content[jsonType] = &own
			response.Content = content
		}
	}
}
