package main

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"testing"
)

const testDocument = `{
 "paths": {
  "/api/things": {
   "get": {"operationId": "things.list", "summary": "The things", "parameters": [{"name": "storeId", "in": "query"}, {"name": "cursor", "in": "query"}, {"name": "X-Store-Id", "in": "header"}, {"name": "Stoa-Version", "in": "header", "schema": {"enum": ["2026-01-01", "2026-02-01"]}}],
    "responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ThingPage"}}, "text/csv": {}}}}},
   "post": {"operationId": "things.create", "description": "First line\nSecond line", "parameters": [{"name": "Idempotency-Key", "in": "header"}],
    "requestBody": {"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ThingRequest"}}}},
    "responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}}, "202": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Run"}}}}}},
   "parameters": [{"name": "x", "in": "query"}]
  },
  "/api/stores/{id}/things/{thingId}": {
   "patch": {"operationId": "things.update", "parameters": [{"name": "thingId", "in": "path"}, {"name": "id", "in": "path"}],
    "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ThingRequest"}}}}, "responses": {"204": {}}},
   "delete": {"operationId": "things.deleteOld", "deprecated": true, "responses": {"204": {}}}
  },
  "/api/things/events": {"get": {"operationId": "apiThings.events", "responses": {"200": {"content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/Thing"}}}}, "204": {}}}},
  "/api/things/archive": {"post": {"operationId": "things.testUrl", "requestBody": {"required": true, "content": {"application/octet-stream": {}}}, "responses": {"200": {"content": {"application/octet-stream": {}}}}}},
  "/api/webhooks/stripe": {"post": {"operationId": "stripe.webhook", "responses": {"200": {}}}}
 },
 "webhooks": {"thing.api_key_made": {"post": {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}}, "thing.odd": {}},
 "components": {"schemas": {
  "ThingPage": {"properties": {"data": {"items": {"$ref": "#/components/schemas/Thing"}}, "nextCursor": {}}},
  "Thing": {"required": ["all"], "properties": {
   "id": {"type": "string", "format": "uuid"}, "at": {"type": "string", "format": "date-time"}, "all": {"type": ["array", "null"]}, "some": {"type": "array"},
   "amount": {"description": "d", "oneOf": [{"type": ["string", "null"]}, {"type": "number"}]}, "other": {"oneOf": [{"type": "string"}, {"$ref": "x"}]}}}
 }}
}`

// TestOperations checks the methods that are made.
func TestOperations(t *testing.T) {
	t.Parallel()
	var d document
	if err := json.Unmarshal([]byte(testDocument), &d); err != nil {
		t.Fatal(err)
	}
	code, err := d.code()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.ParseFile(token.NewFileSet(), "operations.gen.go", code, 0); err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		"func (s ThingsService) List(ctx context.Context, params *ThingsListParams, options ...CallOption) (*ThingPage, error) {",
		"func (s ThingsService) All(ctx context.Context, params *ThingsListParams, options ...CallOption) iter.Seq2[Thing, error] {",
		"func (s ThingsService) Create(ctx context.Context, body ThingRequest, options ...CallOption) (*Thing, *Run, error) {",
		`const Version = "2026-02-01"`,
		`request{method: "POST", path: "/api/things", keyed: true, body: body}`,
		"// First line\n// Second line\n",
		"func (s ThingsService) Update(ctx context.Context, id string, thingId string, body *ThingRequest, options ...CallOption) error {",
		`request{method: "PATCH", path: "/api/stores/{}/things/{}", ids: []string{id, thingId}, body: optional(body)}`,
		"func (s APIThingsService) Events(ctx context.Context, options ...CallOption) iter.Seq2[Thing, error] {",
		"func (s ThingsService) TestURL(ctx context.Context, body io.Reader, options ...CallOption) (*http.Response, error) {",
	} {
		if !strings.Contains(string(code), want) {
			t.Errorf("the code lacks %s", want)
		}
	}
	for _, not := range []string{"DeleteOld", "Stripe"} {
		if strings.Contains(string(code), not) {
			t.Errorf("the code has %s", not)
		}
	}
	d.Paths["/x"] = pathItem{Get: &operation{OperationID: "getX"}}
	if _, err := d.code(); err == nil {
		t.Error("an operation id without a resource is accepted")
	}
}

// TestPrepare checks the document that oapi-codegen reads.
func TestPrepare(t *testing.T) {
	t.Parallel()
	text, err := prepare([]byte(testDocument))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Paths      map[string]map[string]any
		Webhooks   any
		Components struct {
			Schemas map[string]struct{ Properties map[string]map[string]any }
		}
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	list := got.Paths["/api/things"]["get"].(map[string]any)
	if want := []any{map[string]any{"name": "cursor", "in": "query"}}; !reflect.DeepEqual(list["parameters"], want) {
		t.Errorf("parameters %v", list["parameters"])
	}
	if len(got.Paths["/api/webhooks/stripe"]) != 0 || len(got.Paths["/api/stores/{id}/things/{thingId}"]) != 1 {
		t.Errorf("operations %v", got.Paths)
	}
	if _, ok := got.Components.Schemas["ThingAPIKeyMadePayload"]; !ok || len(got.Components.Schemas) != 3 || got.Webhooks != nil {
		t.Errorf("schemas %v, webhooks %v", got.Components.Schemas, got.Webhooks)
	}
	leftOut := map[string]any{"type": "array", "x-go-type-skip-optional-pointer": true, "x-omitempty": false, "x-omitzero": true}
	for name, want := range map[string]map[string]any{
		"id": {"type": "string"}, "at": {"type": "string", "format": "date-time"}, "all": {"type": "array"}, "some": leftOut,
		"amount": {"description": "d", "type": "string"}, "other": {"oneOf": []any{map[string]any{"type": "string"}, map[string]any{"$ref": "x"}}},
	} {
		if member := got.Components.Schemas["Thing"].Properties[name]; !reflect.DeepEqual(member, want) {
			t.Errorf("%s is %v, want %v", name, member, want)
		}
	}
}

// TestGoNames checks that names are written as oapi-codegen writes them.
func TestGoNames(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"stores": "Stores", "apiKeys": "APIKeys", "testUrl": "TestURL", "rotateId": "RotateID", "loginSecondFactor": "LoginSecondFactor"} {
		if got := goName(in); got != want || !ast.IsExported(got) {
			t.Errorf("%s becomes %s, want %s", in, got, want)
		}
	}
}
