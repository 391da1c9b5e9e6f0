package provisioning

import "github.com/prometheus/client_golang/prometheus"

func newRunsTotal() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stoa_provisioning_runs_total", Help: "Provisioning runs that ended in this process, by outcome.",
	}, []string{"outcome"})
}

// Metrics returns the metrics of the runs that this process executes.
func (s *Service) Metrics() []prometheus.Collector { return []prometheus.Collector{s.ended} }
