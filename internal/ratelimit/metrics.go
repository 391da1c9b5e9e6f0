package ratelimit

import "github.com/prometheus/client_golang/prometheus"

// newRefusals returns the counter of refused attempts. The values of its label are the names
// of keys, which are constants of the code.
func newRefusals() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stoa_attempts_refused_total", Help: "Attempts, such as to sign in, that were refused because of the ones before, by rule.",
	}, []string{"rule"})
}

// Metrics returns the metrics of the attempts that this process refused.
func (l *Limiter) Metrics() []prometheus.Collector { return []prometheus.Collector{l.refusals} }
