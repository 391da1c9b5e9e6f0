package credits

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/stoahq/stoa"
)

// metrics count what this process does with credits. No label names a store.
type metrics struct {
	spends *prometheus.CounterVec
	holds  *prometheus.CounterVec
	grants *prometheus.CounterVec
	batch  prometheus.Histogram
}

func newMetrics() metrics {
	return metrics{
		spends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stoa_credit_spends_total", Help: "Spends by outcome.",
		}, []string{"outcome"}),
		holds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stoa_credit_holds_total", Help: "Holds that were made, captured or released, and those that were refused or failed.",
		}, []string{"outcome"}),
		grants: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stoa_credit_grants_total", Help: "Grants of credits by type.",
		}, []string{"type"}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "stoa_credit_batch_spends", Help: "Spends that were carried out together.", Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512},
		}),
	}
}

// Metrics returns the metrics of the ledger in this process.
func (l *Ledger) Metrics() []prometheus.Collector {
	return []prometheus.Collector{l.metrics.spends, l.metrics.holds, l.metrics.grants, l.metrics.batch}
}

// outcomeOf returns the label of a call that ended with err; done is that of a success.
func outcomeOf(err error, done string) string {
	if err == nil {
		return done
	}
	switch code := stoa.CodeOf(err); code { //nolint:exhaustive // all others are refusals
	case stoa.InsufficientCredits:
		return "insufficient"
	case stoa.Internal, stoa.PlatformUnavailable:
		return "failed"
	}
	return "refused"
}

func batchSize(batch []accountBatch) (calls int) {
	for _, account := range batch {
		calls += len(account.calls)
	}
	return calls
}
