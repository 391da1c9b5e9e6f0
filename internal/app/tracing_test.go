package app_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
	"github.com/stoahq/stoa/internal/tracing/tracingtest"
)

const callersTrace = "0af7651916cd43dd8448eb211c80319c"

// TestTraces follows requests of one trace through the master, a store's database and a job,
// and compares the log lines.
func TestTraces(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			collector, out := tracingtest.Start(t), &syncBuffer{}
			cfg := testConfig(t, engine)
			cfg.OTelEndpoint = collector.URL
			s, err := launch(t.Context(), cfg, slog.New(slog.NewJSONHandler(out, nil)))
			if err != nil {
				t.Fatal(err)
			}
			c, store, hostname := connected(t, s, "owner@example.com")
			parent := "00-" + callersTrace + "-b7ad6b7169203331-00"
			c.call("PATCH", "/api/stores/"+store, object{"name": "New name"}, "traceparent", parent, "tracestate", "hidden=1", "baggage", "hidden=1")
			c.proven().buy(store, 1000)
			c.call("POST", "/api/credits/spend", object{"amount": 1}, "X-Store-Id", store, "traceparent", parent).want(http.StatusOK)
			shopper := client{t: t, url: s.URL}
			shopper.call("GET", "/api/storefront/store", nil, "Host", hostname, "traceparent", parent).want(http.StatusOK)
			testkit.Eventually(t, testkit.Timeout, "the job of the change has run", func() bool { return strings.Contains(out.String(), `"kind":"stores.carry_identity"`) })
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			for _, span := range collector.Spans() {
				if len(span.GetParentSpanId()) == 0 && strings.HasSuffix(span.GetName(), " master") {
					t.Errorf("a statement is a trace of its own: %v", span)
				}
			}
			spans := slices.DeleteFunc(collector.Spans(), func(span *tracepb.Span) bool { return hex.EncodeToString(span.GetTraceId()) != callersTrace })
			names := map[string]int{}
			for _, span := range spans {
				names[span.GetName()]++
				if table := tracingtest.Attribute(span, "db.collection.name"); table != "" {
					names[span.GetName()+" "+table]++
				}
			}
			for _, name := range []string{"PATCH /api/stores/{id}", "GET /api/storefront/store", "TRANSACTION master", "SELECT store", "SPEND master", "job stores.carry_identity", "INSERT master river_job", "UPDATE master river_job"} {
				if names[name] == 0 {
					t.Errorf("the trace has no span %q: %v", name, names)
				}
			}
			for _, span := range spans {
				if span.GetName() == "SELECT store" && tracingtest.Attribute(span, "stoa.store.id") != store {
					t.Errorf("a statement in a store's database does not name it: %v", span)
				}
			}
			if bytes.Contains(collector.Bytes(), []byte("hidden")) {
				t.Error("the caller's tracestate or baggage was exported")
			}
			checkTraceLines(t, out.String(), store)
		})
	}
}

// checkTraceLines checks that the log's lines of the trace are those of the requests and a job,
// about the store.
func checkTraceLines(t *testing.T, log, store string) {
	t.Helper()
	var found []string
	for line := range strings.Lines(log) {
		var l struct {
			Msg, Route, Kind, Outcome string
			TraceID                   string   `json:"trace_id"`
			StoreID                   string   `json:"store_id"`
			UserID                    string   `json:"user_id"`
			RequestID                 string   `json:"request_id"`
			DurationMS                *float64 `json:"duration_ms"`
		}
		if json.Unmarshal([]byte(line), &l) != nil || l.TraceID != callersTrace {
			continue
		}
		found = append(found, l.Msg+" "+l.Route+l.Kind)
		if l.StoreID != store || l.DurationMS == nil || l.Msg == "request" && l.RequestID == "" || l.Route == "/api/stores/{id}" && l.UserID == "" {
			t.Error("a line lacks something:", line)
		}
	}
	for _, want := range []string{"request /api/stores/{id}", "request /api/storefront/store", "job stores.carry_identity"} {
		if !slices.Contains(found, want) {
			t.Errorf("the log has no line %q of the trace: %v", want, found)
		}
	}
}

// TestStopWithHangingCollector checks that requests are answered and the server stops in order
// while the collector does not answer.
func TestStopWithHangingCollector(t *testing.T) {
	t.Parallel()
	collector := tracingtest.Start(t)
	collector.AnswerWith(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	cfg := testConfig(t, masterdb.SQLite)
	cfg.OTelEndpoint = collector.URL
	unlimited(cfg)
	s, err := launch(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c, _ := register(t, s, "owner@example.com")
	for range 1000 { // of eight spans each: more than the queue holds, which is 2,048
		c.call("GET", "/api/auth/me", nil).want(http.StatusOK)
	}
	begun := time.Now()
	if err := s.Stop(); err != nil {
		t.Error("the stop has a fault because of the collector:", err)
	}
	if took := time.Since(begun); took > cfg.StopTimeout {
		t.Errorf("the stop took %v", took)
	}
}

// TestTracingSettings checks that a setting that cannot work is refused at the start.
func TestTracingSettings(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*config.Config){
		"OTEL_EXPORTER_OTLP_ENDPOINT": func(c *config.Config) { c.OTelEndpoint = "collector:4317" },
		"OTEL_EXPORTER_OTLP_PROTOCOL": func(c *config.Config) { c.OTelProtocol = "grpc" },
		"OTEL_TRACES_SAMPLER":         func(c *config.Config) { c.OTelSampler = "jaeger_remote" },
		"OTEL_TRACES_SAMPLER_ARG":     func(c *config.Config) { c.OTelSampler, c.OTelSamplerArg = "traceidratio", "1%" },
		"OTEL_RESOURCE_ATTRIBUTES":    func(c *config.Config) { c.OTelAttributes = "production" },
	} {
		cfg := testConfig(t, masterdb.SQLite)
		cfg.OTelEndpoint = "http://127.0.0.1:4318"
		if err := cfg.Check(); err != nil {
			t.Fatal(err)
		}
		set(cfg)
		if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), name+" ") && !strings.Contains(err.Error(), name+":") {
			t.Errorf("%s: %v", name, err)
		}
		cfg.OTelDisabled = true
		if err := cfg.Check(); err != nil {
			t.Errorf("%s, but tracing is disabled: %v", name, err)
		}
	}
}
