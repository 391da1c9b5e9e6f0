package httpapi

import (
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stoahq/stoa/internal/ratelimit"
)

// metrics counts requests. Label values never come from a client: a route is the
// pattern, not the path, and an unknown method is "other".
type metrics struct {
	inFlight prometheus.Gauge
	duration *prometheus.HistogramVec
	limited  *prometheus.CounterVec
	cut      prometheus.Counter
}

func newMetrics(r prometheus.Registerer, memory *ratelimit.ByteBudget) *metrics {
	m := &metrics{
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "stoa_http_requests_in_flight", Help: "Requests that are being answered.",
		}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "stoa_http_request_duration_seconds", Help: "Requests by route, method and class of status, and how long they took.",
			Buckets: []float64{.001, .005, .025, .1, .25, 1, 5, 30},
		}, []string{"route", "method", "status"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stoa_http_limited_total", Help: "Requests refused with 429 by the rate limit that they met.",
		}, []string{"limit"}),
		cut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stoa_http_cut_off_total", Help: "Answers that were cut off because their client did not read them.",
		}),
	}
	if r != nil {
		r.MustRegister(m.inFlight, m.duration, m.limited, m.cut)
		r.MustRegister(memoryMetrics(memory)...)
	}
	return m
}

// observe counts a request that has been answered. pattern is http.Request.Pattern.
func (m *metrics) observe(pattern, method string, w *responseWriter, took time.Duration) {
	m.duration.WithLabelValues(routeLabel(pattern), methodLabel(method), statusLabel(w.status)).Observe(took.Seconds())
	if w.cut {
		m.cut.Inc()
	}
}

// memoryMetrics returns the metrics of the memory that responses use.
func memoryMetrics(memory *ratelimit.ByteBudget) []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "stoa_answer_memory_bytes", Help: "Memory of answers that are read from stores' databases or sent to clients.",
		}, func() float64 { return float64(memory.Stats().Used) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "stoa_answer_memory_limit_bytes", Help: "How much there may be of it.",
		}, func() float64 { return float64(memory.Stats().Total) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "stoa_answer_memory_refused_total", Help: "Times that a store or client was refused more of it.",
		}, func() float64 { return float64(memory.Stats().Refused) }),
	}
}

// routeLabel removes the method from a pattern: "GET /api/stores/{id}" → "/api/stores/{id}".
func routeLabel(pattern string) string {
	if _, path, found := strings.Cut(pattern, " "); found {
		return path
	}
	return "none" // only the fallback has no method
}

func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

func statusLabel(status int) string {
	if status < 100 || status > 599 {
		return "none" // no response was sent
	}
	return [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}[status/100-1]
}
