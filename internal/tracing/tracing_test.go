package tracing_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/stoahq/stoa/internal/tracing"
	"github.com/stoahq/stoa/internal/tracing/tracingtest"
)

const (
	callersTrace = "0af7651916cd43dd8448eb211c80319c"
	callersSpan  = "b7ad6b7169203331"
)

// lockedBuffer is a log that is safe for concurrent use.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// TestParseSamplerErrors checks that the errors tell which of the two settings is wrong.
func TestParseSamplerErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, arg string
		want      error
	}{
		{"jaeger_remote", "", tracing.ErrSamplerName},
		{"jaeger_remote", "1%", tracing.ErrSamplerName},
		{"", "", tracing.ErrSamplerName},
		{"traceidratio", "1%", tracing.ErrSamplerShare},
		{"traceidratio", "NaN", tracing.ErrSamplerShare},
		{"parentbased_traceidratio", "1.1", tracing.ErrSamplerShare},
		{"parentbased_traceidratio", "-0.1", tracing.ErrSamplerShare},
		{"traceidratio", "1", nil},
		{"traceidratio", "", nil},
		{"always_on", "1%", nil}, // it has no argument
	} {
		if _, err := tracing.ParseSampler(c.name, c.arg); !errors.Is(err, c.want) || c.want != nil && errors.Is(err, tracing.ErrSamplerName) == errors.Is(err, tracing.ErrSamplerShare) {
			t.Errorf("%q %q: %v, want %v", c.name, c.arg, err, c.want)
		}
	}
}

func newTracer(t *testing.T, url, sampler, arg string) (*tracing.Tracer, *lockedBuffer) {
	t.Helper()
	s, err := tracing.ParseSampler(sampler, arg)
	if err != nil {
		t.Fatal(err)
	}
	out := &lockedBuffer{}
	tracer, err := tracing.New(t.Context(), tracing.Options{Endpoint: url, Service: "test", Sampler: s, Log: slog.New(slog.NewTextHandler(out, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tracer.Close(context.Background()) })
	return tracer, out
}

// request returns a request with traceparent headers.
func request(t *testing.T, parents ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	for _, p := range parents {
		r.Header.Add("Traceparent", p)
	}
	return r
}

// TestRequestParent checks which trace a request belongs to and whether it is recorded, for
// everything that a caller may send.
func TestRequestParent(t *testing.T) {
	t.Parallel()
	valid := func(flags string) string { return "00-" + callersTrace + "-" + callersSpan + "-" + flags }
	// With this id the share of traces always takes the trace: it is the smallest.
	chosen := "00-00000000000000010000000000000000-" + callersSpan + "-01"
	for name, c := range map[string]struct {
		sampler, arg string
		trusted      bool
		parents      []string
		trace        string // "": a new one
		recorded     bool
	}{
		"none":                             {sampler: "always_on", recorded: true},
		"valid":                            {sampler: "always_on", parents: []string{valid("00")}, trace: callersTrace, recorded: true},
		"the flag of anybody":              {sampler: "parentbased_always_off", parents: []string{valid("01")}, trace: callersTrace},
		"the flag of a proxy":              {sampler: "parentbased_always_off", trusted: true, parents: []string{valid("01")}, trace: callersTrace, recorded: true},
		"a proxy that records not":         {sampler: "parentbased_always_on", trusted: true, parents: []string{valid("00")}, trace: callersTrace},
		"a proxy, not parent-based":        {sampler: "always_off", trusted: true, parents: []string{valid("01")}, trace: callersTrace},
		"an id that the share takes":       {sampler: "parentbased_traceidratio", arg: "0.000001", parents: []string{chosen}, trace: "00000000000000010000000000000000"},
		"two":                              {sampler: "always_on", parents: []string{valid("01"), valid("01")}, recorded: true},
		"malformed":                        {sampler: "always_on", parents: []string{"00-xyz-01"}, recorded: true},
		"zero":                             {sampler: "always_on", parents: []string{"00-" + strings.Repeat("0", 32) + "-" + callersSpan + "-01"}, recorded: true},
		"upper case":                       {sampler: "always_on", parents: []string{strings.ToUpper(valid("01"))}, recorded: true},
		"version ff":                       {sampler: "always_on", parents: []string{"ff" + valid("01")[2:]}, recorded: true},
		"huge":                             {sampler: "always_on", parents: []string{valid("01") + strings.Repeat("-x", 50_000)}, recorded: true},
		"of a later version, and too long": {sampler: "always_on", parents: []string{"01" + valid("01")[2:] + strings.Repeat("-x", 50_000)}, recorded: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tracer, _ := newTracer(t, tracingtest.Start(t).URL, c.sampler, c.arg)
			r := request(t, c.parents...)
			r.Header.Set("Tracestate", "a="+strings.Repeat("x", 100<<10))
			r.Header.Set("Baggage", "secret=1")
			ctx, span := tracer.Request(t.Context(), r, c.trusted)
			defer span.End()
			got := trace.SpanContextFromContext(ctx)
			if span.IsRecording() != c.recorded || got.IsSampled() != c.recorded {
				t.Errorf("recorded: %v, want %v", span.IsRecording(), c.recorded)
			}
			if id := tracing.ID(ctx); (id == callersTrace || id == c.trace) != (c.trace != "") || len(id) != 32 || c.trace != "" && id != c.trace {
				t.Errorf("the trace is %s, want %q", id, c.trace)
			}
			if id := tracing.SentID(r); id != c.trace {
				t.Errorf("while tracing is off the trace is %q, want %q", id, c.trace)
			}
			if got.TraceState().Len() != 0 {
				t.Error("the caller's tracestate was kept")
			}
		})
	}
}

// FuzzSentID compares the trace id that is read while tracing is off with that of the library.
func FuzzSentID(f *testing.F) {
	whole := callersTrace + "-" + callersSpan
	for _, text := range []string{
		"", "00-" + whole + "-01", "00-" + whole + "-03", "00-" + whole + "-04", "00-" + whole + "-01-", "00-" + whole + "-01-x", "00-" + whole,
		"01-" + whole + "-ff-x", "fe-" + whole + "-01", "ff-" + whole + "-01", "0-" + whole + "-01", "00-" + whole + "-0g", "00-" + whole + "-1",
		"00-" + callersTrace + "-" + strings.Repeat("0", 16) + "-01", "00-" + strings.Repeat("0", 32) + "-" + callersSpan + "-01", "00-" + whole + "-01\n",
		strings.ToUpper("00-" + whole + "-01"), "00-" + callersTrace + "0-" + callersSpan + "-01", "00--" + whole + "-01",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		want := ""
		if len(text) <= 128 {
			header := propagation.HeaderCarrier{"Traceparent": {text}}
			want = tracing.ID(propagation.TraceContext{}.Extract(t.Context(), header))
		}
		if got := tracing.SentID(request(t, text)); got != want {
			t.Errorf("%q: trace id %q, want %q", text, got, want)
		}
	})
}

// TestShareIsOurs checks that callers who choose their ids get about the operator's share.
func TestShareIsOurs(t *testing.T) {
	t.Parallel()
	tracer, _ := newTracer(t, tracingtest.Start(t).URL, "traceidratio", "0.5")
	recorded := 0
	for range 1000 {
		_, span := tracer.Request(t.Context(), request(t, "00-0000000000000001000000000000000"+"1-"+callersSpan+"-01"), false)
		if span.IsRecording() {
			recorded++
		}
		span.End()
	}
	if recorded < 400 || recorded > 600 { // 6.3 standard deviations
		t.Errorf("%d of 1,000 requests with a chosen id were recorded, want about 500", recorded)
	}
}

// TestStatements checks the span of a statement, and that values and texts of errors are not
// in what is exported.
func TestStatements(t *testing.T) {
	t.Parallel()
	collector := tracingtest.Start(t)
	tracer, _ := newTracer(t, collector.URL, "always_on", "")
	ctx, span := tracer.Request(t.Context(), request(t), false)
	db := tracer.Statements("master", "postgresql")
	db.Begin(ctx, `CREATE ROLE x PASSWORD 'hidden'`).End(errors.New("hidden: duplicate"))
	db.Begin(t.Context(), `SELECT outside`).End(nil) // belongs to no trace
	span.End()
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	spans := collector.Spans()
	if len(spans) != 2 {
		t.Fatalf("%d spans, want those of the request and of one statement", len(spans))
	}
	statement := spans[0]
	if statement.GetName() != "CREATE master" || tracingtest.Attribute(statement, "db.query.text") != "CREATE ROLE x PASSWORD ?" ||
		tracingtest.Attribute(statement, "db.system.name") != "postgresql" || tracingtest.Attribute(statement, "error.type") != "*errors.errorString" {
		t.Errorf("the statement: %v", statement)
	}
	if !bytes.Equal(statement.GetParentSpanId(), spans[1].GetSpanId()) {
		t.Error("the statement is not a part of the request")
	}
	if bytes.Contains(collector.Bytes(), []byte("hidden")) {
		t.Error("a value was exported")
	}
}

func TestWithoutValues(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"SELECT a FROM t1 WHERE b = $1 AND c = ?\n\tLIMIT 10": "SELECT a FROM t1 WHERE b = $1 AND c = ? LIMIT ?",
		"SELECT 'it''s' || 'x'":                               "SELECT ?? || ?",
		`SELECT "secret"`:                                     "SELECT ?",
		"SELECT 1.5e3, x2, -7":                                "SELECT ?, x2, -?",
		`SELECT 'a\' , 'hidden'`:                              "",
		`SELECT $tag$hidden$tag$`:                             "",
		`SELECT 'open`:                                        "",
		"SELECT 1 -- owner's 'hidden'":                        "",
		"SELECT /* ' */ 'hidden'":                             "",
		"SELECT 0x68 # '":                                     "",
		"":                                                    "",
	} {
		if got := tracing.WithoutValues(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := tracing.WithoutValues("SELECT " + strings.Repeat("a, ", 10_000)); len(got) > 3000 {
		t.Errorf("%d bytes of a long statement", len(got))
	}
}

// FuzzWithoutValues checks that no literal of a statement is left, wherever it stands.
func FuzzWithoutValues(f *testing.F) {
	f.Add("SELECT ", "hidden", " FROM t")
	f.Add(`SELECT '\`, "x", `' || '`)
	f.Fuzz(func(t *testing.T, before, value, after string) {
		secret := "s3cr3t" + hex.EncodeToString([]byte(value))
		if strings.ContainsAny(before, `'"`) { // the value would not be a literal
			return
		}
		if strings.Contains(tracing.WithoutValues(before+"'"+secret+"'"+after), secret) {
			t.Errorf("the literal is left in %q", tracing.WithoutValues(before+"'"+secret+"'"+after))
		}
	})
}

// TestFailingCollectorIsLoggedOnce sends many batches to a collector that refuses them with a
// flood of text, and then accepts them.
func TestFailingCollectorIsLoggedOnce(t *testing.T) {
	t.Parallel()
	collector := tracingtest.Start(t)
	collector.AnswerWith(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		for range 1024 {
			if _, err := io.WriteString(w, strings.Repeat("flood", 2000)); err != nil {
				return
			}
		}
	})
	tracer, out := newTracer(t, collector.URL, "always_on", "")
	flush := func(n int) {
		for range n {
			_, span := tracer.Request(t.Context(), request(t), false)
			span.End()
			if err := tracer.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	flush(10)
	if collector.Requests() < 10 {
		t.Fatalf("%d batches were sent", collector.Requests())
	}
	if n := strings.Count(out.String(), "spans are not exported"); n != 1 || len(out.String()) > 2000 {
		t.Errorf("logged %d times, %d bytes:\n%.2000s", n, len(out.String()), out.String())
	}
	collector.AnswerWith(nil)
	flush(3)
	if n := strings.Count(out.String(), "spans are exported again"); n != 1 || len(collector.Spans()) != 3 {
		t.Errorf("logged %d times that it works, %d spans:\n%.2000s", n, len(collector.Spans()), out.String())
	}
}

// TestHangingCollector makes far more spans than the queue holds while the collector does not
// answer: none waits, memory stays bounded, and Close returns.
func TestHangingCollector(t *testing.T) {
	t.Parallel()
	collector := tracingtest.Start(t)
	collector.AnswerWith(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	tracer, _ := newTracer(t, collector.URL, "always_on", "")
	record := func(n int) {
		db := tracer.Statements("master", "postgresql")
		for range n {
			ctx, span := tracer.Request(t.Context(), request(t), false)
			db.Begin(ctx, "SELECT "+strings.Repeat("a, ", 500)).End(nil)
			span.End()
		}
	}
	record(5_000) // fills the queue
	before := heap()
	record(20_000)
	if grown := int64(heap()) - int64(before); grown > 8<<20 {
		t.Errorf("memory grew by %d KiB with 40,000 further spans", grown>>10)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = tracer.Close(t.Context())
	}()
	select {
	case <-closed:
	case <-time.After(time.Minute):
		t.Error("Close waits for the collector")
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestOffAllocatesNothing checks that requests, statements and jobs cost no memory while tracing
// is off.
func TestOffAllocatesNothing(t *testing.T) {
	var tracer *tracing.Tracer
	db := tracer.Statements("master", "postgresql")
	ctx := t.Context()
	r := request(t, "00-"+callersTrace+"-"+callersSpan+"-01")
	if n := testing.AllocsPerRun(100, func() {
		_ = tracing.SentID(r)
		db.Begin(ctx, "SELECT 1").End(nil)
		_ = tracer.Parent(ctx)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if tracer.Metrics() != nil || tracer.Close(ctx) != nil {
		t.Error("tracing that is off has metrics, or fails to close")
	}
}
