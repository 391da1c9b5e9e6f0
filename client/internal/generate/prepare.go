package main

import (
	"encoding/json"
	"slices"
	"strings"
)

// prepare returns a document from which oapi-codegen makes the types that the operations use:
// without deprecated operations, without parameters that are call options, and with the
// simple Go type where a schema allows several.
func prepare(raw []byte) ([]byte, error) {
	var content map[string]any
	if err := json.Unmarshal(raw, &content); err != nil {
		return nil, err
	}
	paths, _ := content["paths"].(map[string]any)
	for _, item := range paths {
		operations, _ := item.(map[string]any)
		for method, o := range operations {
			op, ok := o.(map[string]any)
			if !ok {
				continue
			}
			if id, _ := op["operationId"].(string); op["deprecated"] == true || notForClients[id] {
				delete(operations, method)
				continue
			}
			delete(op, "requestBody") // oapi-codegen would make aliases of their types
			list, _ := op["parameters"].([]any)
			op["parameters"] = slices.DeleteFunc(list, func(p any) bool {
				parameter, _ := p.(map[string]any)
				return parameter["in"] == "header" || parameter["in"] == "query" && parameter["name"] == storeParameter
			})
		}
	}
	namePayloads(content)
	simplify(content)
	return json.MarshalIndent(content, "", " ")
}

// namePayloads makes schemas of the bodies of webhooks: credits.spent has CreditsSpentPayload.
// oapi-codegen would give each several types.
func namePayloads(content map[string]any) {
	webhooks, _ := content["webhooks"].(map[string]any)
	components, _ := content["components"].(map[string]any)
	schemas, _ := components["schemas"].(map[string]any)
	for name, item := range webhooks {
		body := item
		for _, key := range []string{"post", "requestBody", "content", "application/json", "schema"} {
			object, _ := body.(map[string]any)
			body = object[key]
		}
		var words string
		for _, word := range strings.FieldsFunc(name, func(r rune) bool { return r == '.' || r == '_' || r == '-' }) {
			words += goName(word)
		}
		if body != nil {
			schemas[words+"Payload"] = body
		}
	}
	delete(content, "webhooks")
}

// stringFormats are formats whose Go type is a string: it is simpler to use than a type of
// another module.
var stringFormats = []any{"uuid", "email", "date", "uri", "binary"}

// simplify changes schemas that have no simple Go type, anywhere in a document:
//
//   - an amount, which is a string or a number, becomes a string: no amount goes through a float
//   - an array that may be null becomes an array: a nil slice is left out or sent as null
//   - an array or a map that may be left out is no pointer: nil is left out, an empty one is sent
//   - formats of strings are dropped
func simplify(v any) {
	switch v := v.(type) {
	case []any:
		for _, member := range v {
			simplify(member)
		}
	case map[string]any:
		for _, member := range v {
			simplify(member)
		}
		if variants, ok := v["oneOf"].([]any); ok && stringOrNumber(variants) {
			delete(v, "oneOf")
			v["type"] = "string"
		}
		if types, ok := v["type"].([]any); ok && slices.Contains(types, any("array")) {
			v["type"] = "array"
		}
		if slices.Contains(stringFormats, v["format"]) {
			delete(v, "format")
		}
		leaveOutNil(v)
	}
}

// leaveOutNil makes the optional members of an object that are arrays or maps no pointers.
func leaveOutNil(object map[string]any) {
	members, _ := object["properties"].(map[string]any)
	required, _ := object["required"].([]any)
	for name, m := range members {
		member, _ := m.(map[string]any)
		if slices.Contains(required, any(name)) || member["type"] != "array" && member["additionalProperties"] == nil {
			continue
		}
		member["x-go-type-skip-optional-pointer"] = true
		member["x-omitempty"], member["x-omitzero"] = false, true
	}
}

// stringOrNumber reports whether a value is a string or a number.
func stringOrNumber(variants []any) bool {
	var text, number bool
	for _, variant := range variants {
		schema, _ := variant.(map[string]any)
		types, ok := schema["type"].([]any)
		if !ok {
			types = []any{schema["type"]}
		}
		for _, t := range types {
			switch t {
			case "string":
				text = true
			case "number":
				number = true
			case "null":
			default:
				return false
			}
		}
	}
	return text && number
}
