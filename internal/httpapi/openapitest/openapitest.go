// Package openapitest checks answers of the API against its OpenAPI document, in tests.
package openapitest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

const documentURL = "openapi.json"

// Document is an OpenAPI document. It is safe for concurrent use.
type Document struct {
	content  map[string]any
	routes   http.ServeMux
	compiler *jsonschema.Compiler

	mu      sync.Mutex // guards compiler and schemas
	schemas map[string]*jsonschema.Schema
	used    map[string]bool // operations and statuses that were checked
}

// New returns the document with that content. Answers may have no members but those that the
// document describes: the document itself lets later versions add some.
func New(raw []byte) (*Document, error) { return newDocument(raw, closeObjects) }

// NewOpen returns the document of an earlier version, to whose answers members may have been
// added since.
func NewOpen(raw []byte) (*Document, error) { return newDocument(raw, func(any) {}) }

func newDocument(raw []byte, prepare func(any)) (*Document, error) {
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	content, ok := parsed.(map[string]any)
	if !ok {
		return nil, errors.New("openapitest: the document is no object")
	}
	prepare(content["components"])
	prepare(content["paths"])
	d := &Document{content: content, compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}, used: map[string]bool{}}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource(documentURL, content); err != nil {
		return nil, err
	}
	for path := range object(content["paths"]) {
		d.routes.HandleFunc(path, nowhere)
	}
	return d, nil
}

// closeObjects forbids further members in all schemas below v that list their members.
func closeObjects(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, lists := v["properties"].(map[string]any); lists && v["additionalProperties"] == nil {
			v["additionalProperties"] = false
		}
		for _, below := range v {
			closeObjects(below)
		}
	case []any:
		for _, below := range v {
			closeObjects(below)
		}
	}
}

func nowhere(http.ResponseWriter, *http.Request) {}

func object(v any) map[string]any { m, _ := v.(map[string]any); return m }

// Check returns why an answer is not as the document says. Requests to paths that the
// document does not have are not checked.
func (d *Document) Check(method, path string, status int, header http.Header, body []byte) error {
	pattern := d.pattern(path)
	operation := d.operation(method, path)
	if operation == nil {
		return nil // no path of the document, 405, and HEAD
	}
	name := method + " " + pattern
	response := object(object(operation["responses"])[strconv.Itoa(status)])
	if response == nil {
		return fmt.Errorf("%s answers %d, which the document does not have", name, status)
	}
	d.mu.Lock()
	d.used[name+" "+strconv.Itoa(status)] = true
	d.mu.Unlock()
	content := object(response["content"])
	if len(body) == 0 && len(content) == 0 {
		return nil
	}
	kind, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return fmt.Errorf("%s %d: the content type %q: %w", name, status, header.Get("Content-Type"), err)
	}
	if content[kind] == nil {
		return fmt.Errorf("%s %d answers %s, which the document does not have", name, status, kind)
	}
	if !strings.HasSuffix(kind, "json") {
		return nil
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s %d: %w", name, status, err)
	}
	schema, err := d.schema("paths", pattern, strings.ToLower(method), "responses", strconv.Itoa(status), "content", kind, "schema")
	if err != nil {
		return err
	}
	if err := schema.Validate(value); err != nil {
		return fmt.Errorf("%s %d: %w: %.2000s", name, status, err, body)
	}
	return nil
}

// pattern returns the path of the document that a request's path is one of, or "".
func (d *Document) pattern(path string) string {
	_, pattern := d.routes.Handler(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}})
	return pattern
}

// operation returns the operation that a request calls, or nil.
func (d *Document) operation(method, path string) map[string]any {
	return object(object(object(d.content["paths"])[d.pattern(path)])[strings.ToLower(method)])
}

// CheckRequest returns why the JSON body of a request is not as the document says.
func (d *Document) CheckRequest(method, path string, body []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s %s: the request: %w", method, path, err)
	}
	schema, err := d.schema("paths", d.pattern(path), strings.ToLower(method), "requestBody", "content", "application/json", "schema")
	if err == nil {
		err = schema.Validate(value)
	}
	if err != nil {
		return fmt.Errorf("%s %s: the request: %w: %.2000s", method, path, err, body)
	}
	return nil
}

// schema returns the schema at that place of the document, which is compiled once.
func (d *Document) schema(place ...string) (*jsonschema.Schema, error) {
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	var pointer strings.Builder
	for _, part := range place {
		pointer.WriteString("/" + url.PathEscape(escape.Replace(part)))
	}
	location := documentURL + "#" + pointer.String()
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.schemas[location]; s != nil {
		return s, nil
	}
	s, err := d.compiler.Compile(location)
	d.schemas[location] = s
	return s, err
}

// Unused returns the documented answers with a 2xx status that were never checked.
func (d *Document) Unused() (list []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for path, item := range object(d.content["paths"]) {
		for method, operation := range object(item) {
			for status := range object(object(operation)["responses"]) {
				if name := strings.ToUpper(method) + " " + path + " " + status; status[0] == '2' && !d.used[name] {
					list = append(list, name)
				}
			}
		}
	}
	slices.Sort(list)
	return list
}

// Transport checks the answers to requests that it sends.
type Transport struct {
	http.RoundTripper
	Document *Document
	// Wrong is called with each answer that is not as the document says.
	Wrong func(error)
	// Examples, if any, collects examples from the exchanges.
	Examples *Examples
}

// RoundTrip implements http.RoundTripper. Answers of Stoa are checked, which have the
// request's id, unless the request names a host, which may be one of a store.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := t.RoundTripper.RoundTrip(r)
	if err == nil && t.Examples != nil && !strings.HasSuffix(mediaType(res), "json") { // its request is an example
		t.Document.record(t.Examples, r, res.StatusCode, nil)
	}
	if err != nil || r.Host != r.URL.Host && !strings.HasPrefix(r.URL.Path, "/api/storefront/") || namesOtherVersion(r) || res.Header.Get("X-Request-Id") == "" || !strings.HasSuffix(mediaType(res), "json") {
		return res, err
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	res.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		return res, nil //nolint:nilerr // the caller sees a body that has ended early, and its error is about that
	}
	body, err = t.decoded(r, res, body)
	if err != nil {
		t.Wrong(err)
		return res, nil
	}
	if err := t.Document.Check(r.Method, r.URL.Path, res.StatusCode, res.Header, body); err != nil {
		t.Wrong(err)
	} else if t.Examples != nil {
		t.Document.record(t.Examples, r, res.StatusCode, body)
	}
	return res, nil
}

// namesOtherVersion reports whether the answer to a request may be of another version than the
// document.
func namesOtherVersion(r *http.Request) bool { return r.Header.Get("Stoa-Version") != "" }

// secrets match what answers hold that must not be compressed with what a caller may have
// chosen: access tokens, API keys, and passwords in connection strings.
var secrets = regexp.MustCompile(`eyJ[\w-]{10,}\.|stoa_live_[A-Z2-7]{20,}|://[^/"@:]+:[^/"@]+@`)

// decoded returns the body without its content coding. It fails when secrets were compressed.
func (t Transport) decoded(r *http.Request, res *http.Response, body []byte) (_ []byte, err error) {
	coding := res.Header.Get("Content-Encoding")
	switch coding {
	case "gzip":
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(body)); err == nil {
			body, err = io.ReadAll(z)
		}
	case "zstd":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(nil); err == nil {
			body, err = z.DecodeAll(body, nil)
			z.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s is not in the coding %s: %w", r.Method, r.URL.Path, coding, err)
	}
	if (coding != "" || res.Uncompressed) && mediaType(res) == "application/json" && secrets.Match(body) {
		return nil, fmt.Errorf("%s %s: an answer with secrets is compressed", r.Method, r.URL.Path)
	}
	return body, nil
}

func mediaType(res *http.Response) string {
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	return kind
}
