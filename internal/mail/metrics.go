package mail

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

func newSent() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stoa_mails_total", Help: "Attempts to send a mail: sent, refused by the server for good, failed, or without a server.",
	}, []string{"outcome"})
}

// Metrics returns the metrics of the mail that this process sends.
func (s *Sender) Metrics() []prometheus.Collector { return []prometheus.Collector{s.sent} }

func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "sent"
	case errors.Is(err, ErrNoServer):
		return "no_server"
	case IsFinal(err):
		return "refused"
	}
	return "failed"
}
