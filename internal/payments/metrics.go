package payments

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tracing"
)

// metrics count what this process does about payments. No label names a store.
type metrics struct {
	purchases *prometheus.CounterVec
	events    *prometheus.CounterVec
	requests  *prometheus.CounterVec
}

func newMetrics() metrics {
	return metrics{
		purchases: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stoa_purchases_total", Help: "Purchases of credits that reached a state.",
		}, []string{"state"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stoa_payment_events_total", Help: "Attempts to apply an event of the payment provider: applied, refused (needs a person) or failed (is tried again).",
		}, []string{"outcome"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stoa_stripe_requests_total", Help: "Requests to Stripe by the class of the answer's status, or no_answer.",
		}, []string{"outcome"}),
	}
}

// Metrics returns the metrics of payments in this process.
func (s *Service) Metrics() []prometheus.Collector {
	return []prometheus.Collector{s.metrics.purchases, s.metrics.events, s.metrics.requests}
}

// reached counts a purchase that is in a new state once tx has committed.
func (s *Service) reached(tx *masterdb.Tx, state Status) {
	tx.AfterCommit(func() { s.metrics.purchases.WithLabelValues(string(state)).Inc() })
}

// countedTransport counts the requests to Stripe and makes their spans.
type countedTransport struct {
	http.RoundTripper
	requests *prometheus.CounterVec
	tracer   *tracing.Tracer
}

// RoundTrip implements http.RoundTripper.
func (t countedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := t.send(r)
	outcome := "no_answer"
	if err == nil && answer.StatusCode >= 100 && answer.StatusCode <= 599 {
		outcome = [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}[answer.StatusCode/100-1]
	}
	t.requests.WithLabelValues(outcome).Inc()
	return answer, err
}

func (t countedTransport) send(r *http.Request) (*http.Response, error) {
	if t.tracer == nil {
		return t.RoundTripper.RoundTrip(r)
	}
	// The path names customers and payments. It is not recorded.
	ctx, span := t.tracer.Call(r.Context(), "stripe "+r.Method, attribute.String("http.request.method", r.Method), attribute.String("server.address", r.URL.Hostname()))
	answer, err := t.RoundTripper.RoundTrip(r.WithContext(ctx))
	status := 0
	if answer != nil {
		status = answer.StatusCode
	}
	tracing.Answered(span, status, err)
	return answer, err
}

// MaxWaiting is how many rows of one kind are counted.
const MaxWaiting = 1000

// Waiting is what waits for the payment provider or for a person.
type Waiting struct {
	Events    int64      // that are not applied; MaxWaiting + 1 means more than MaxWaiting
	Oldest    *time.Time // when the first of them was received; nil: there is none
	Purchases int64      // that are not paid yet; as Events
}

// ReadWaiting reads what waits. What it reads does not grow with the number of purchases.
func ReadWaiting(ctx context.Context, q masterdb.Querier) (w Waiting, err error) {
	err = q.Get(ctx, &w, `SELECT (SELECT count(*) FROM (SELECT 1 AS one FROM stripe_events WHERE applied_at IS NULL ORDER BY received_at LIMIT $1) e) AS events,
		(SELECT count(*) FROM (SELECT 1 AS one FROM purchases WHERE status = 'pending' ORDER BY id LIMIT $1) p) AS purchases`, MaxWaiting+1)
	if err != nil || w.Events == 0 {
		return w, err
	}
	var first struct{ ReceivedAt time.Time }
	err = q.Get(ctx, &first, `SELECT received_at FROM stripe_events WHERE applied_at IS NULL ORDER BY received_at LIMIT 1`)
	if errors.Is(err, masterdb.ErrNotFound) { // it was applied meanwhile
		return w, nil
	}
	w.Oldest = &first.ReceivedAt
	return w, err
}
