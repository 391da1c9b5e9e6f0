package openapitest

import (
	"net/http"
	"strings"
	"testing"
)

const document = `{
	"openapi": "3.1.0",
	"paths": {"/things/{id}": {"get": {"responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}}}}}},
	"components": {"schemas": {
		"Thing": {"type": "object", "required": ["name"], "properties": {
			"name": {"type": "string"}, "part": {"$ref": "#/components/schemas/Part"}, "free": {"type": "object", "additionalProperties": true}}},
		"Part": {"type": "object", "properties": {"size": {"type": "integer"}}}
	}}
}`

func TestCheck(t *testing.T) {
	t.Parallel()
	d, err := New([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	for body, fault := range map[string]string{
		`{"name": "a", "part": {"size": 1}, "free": {"x": 1}}`: "",
		`{"name": 1}`:                       "want string",
		`{}`:                                "missing property",
		`{"name": "a", "more": 1}`:          "additional properties 'more'",
		`{"name": "a", "part": {"more":1}}`: "additional properties 'more'",
	} {
		err := d.Check(http.MethodGet, "/things/1", http.StatusOK, http.Header{"Content-Type": {"application/json"}}, []byte(body))
		if (err == nil) != (fault == "") || err != nil && !strings.Contains(err.Error(), fault) {
			t.Errorf("%s: %v, want %q", body, err, fault)
		}
	}
	if err := d.Check(http.MethodGet, "/things/1", http.StatusTeapot, nil, nil); err == nil {
		t.Error("a status that the document does not have")
	}
	if err := d.Check(http.MethodGet, "/others", http.StatusTeapot, nil, nil); err != nil {
		t.Error(err)
	}
}
