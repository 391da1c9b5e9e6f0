package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
)

const versionHeader = "Stoa-Version"

// apiVersion is a version of the API. docs/api/versions.md has the policy.
type apiVersion struct {
	date string
	// before gives an answer the form that it had before this version.
	before func(answer map[string]any)
}

// versions lists the versions, oldest first. The handlers and the document are of the last
// one. An answer in an older version passes through all later ones, the last one first.
var versions = []apiVersion{
	{date: "2026-10-01"},
	{date: "2026-11-28", before: func(answer map[string]any) {
		eachStore(answer, func(store map[string]any) { rename(store, "suspendedByOperator", "held") })
	}},
}

// Versions returns the versions of the API, oldest first.
func Versions() (dates []string) {
	for _, v := range versions {
		dates = append(dates, v.date)
	}
	return dates
}

func newestVersion() string { return versions[len(versions)-1].date }

// eachStore calls change with each store of an answer, wherever answers have one. Objects
// below it are not searched: some hold what merchants have written.
func eachStore(answer map[string]any, change func(map[string]any)) {
	for _, list := range []string{"data", "stores"} {
		items, _ := answer[list].([]any)
		for _, item := range items {
			if store, ok := item.(map[string]any); ok {
				change(store)
			}
		}
	}
	if store, ok := answer["store"].(map[string]any); ok {
		change(store)
	}
	change(answer)
}

func rename(in map[string]any, from, to string) {
	if value, there := in[from]; there {
		delete(in, from)
		in[to] = value
	}
}

// requestedVersion returns the version that a request names, or the newest one when it names
// none.
func requestedVersion(r *http.Request) (string, error) {
	switch named := r.Header.Values(versionHeader); {
	case len(named) == 0:
		return newestVersion(), nil
	case len(named) == 1 && slices.Contains(Versions(), named[0]):
		return named[0], nil
	}
	return newestVersion(), stoa.Errorf(stoa.VersionUnknown, "The header %s names no version of this API. The versions are %s.", versionHeader, strings.Join(Versions(), ", "))
}

// inVersion returns a JSON answer in the form that it has in a version.
func inVersion(version string, body []byte) []byte {
	if version == "" || version == newestVersion() {
		return body
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var answer map[string]any
	if err := d.Decode(&answer); err != nil {
		return body // no object: no version has changed such an answer
	}
	for _, v := range slices.Backward(versions) {
		if v.date == version {
			break
		}
		v.before(answer)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(answer); err != nil {
		return body // what was decoded can be encoded
	}
	return out.Bytes()
}

// describeVersions adds the header to requests and answers of an operation.
func describeVersions(op *huma.Operation) {
	schema := &huma.Schema{Type: huma.TypeString}
	for _, date := range Versions() {
		schema.Enum = append(schema.Enum, date)
	}
	op.Parameters = append(op.Parameters, &huma.Param{
		Name: versionHeader, In: "header", Description: "The version of the API that the caller was written for; the newest one unless told", Schema: schema, Example: newestVersion(),
	})
	for _, response := range op.Responses {
		response.Headers[versionHeader] = &huma.Param{Description: "The version of the API that the answer is of", Schema: schema}
	}
}
