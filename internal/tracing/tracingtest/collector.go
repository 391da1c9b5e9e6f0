// Package tracingtest is a stand-in for an OpenTelemetry collector, for tests.
package tracingtest

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Collector takes spans by OTLP over HTTP. It is safe for concurrent use.
type Collector struct {
	URL string

	mu       sync.Mutex
	raw      bytes.Buffer
	spans    []*tracepb.Span
	requests int
	answer   http.HandlerFunc // nil: accepts
}

// Start starts a collector, which ends with the test.
func Start(t testing.TB) *Collector {
	t.Helper()
	c := &Collector{}
	server := httptest.NewServer(c)
	t.Cleanup(func() {
		server.CloseClientConnections() // of calls that hang
		server.Close()
	})
	c.URL = server.URL
	return c
}

// AnswerWith makes the collector answer each batch by fn instead of accepting it; nil: as
// before.
func (c *Collector) AnswerWith(fn http.HandlerFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = fn
}

// ServeHTTP implements http.Handler.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.requests++
	answer := c.answer
	c.mu.Unlock()
	if answer != nil {
		_, _ = io.Copy(io.Discard, r.Body) // the server notices the end of a connection only after that
		answer(w, r)
		return
	}
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unpacked, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = unpacked
	}
	text, err := io.ReadAll(body)
	// TracesData has the form of ExportTraceServiceRequest.
	var batch tracepb.TracesData
	if err == nil {
		err = proto.Unmarshal(text, &batch)
	}
	if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "no traces", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw.Write(text)
	for _, resource := range batch.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// Spans returns the spans that were accepted.
func (c *Collector) Spans() []*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*tracepb.Span(nil), c.spans...)
}

// Bytes returns all batches that were accepted, as they were sent.
func (c *Collector) Bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.raw.Bytes())
}

// Requests returns how many batches were sent, also those that were not accepted.
func (c *Collector) Requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requests
}

// Attribute returns an attribute of a span as text, or "".
func Attribute(span *tracepb.Span, name string) string {
	for _, a := range span.GetAttributes() {
		if a.GetKey() == name {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}
