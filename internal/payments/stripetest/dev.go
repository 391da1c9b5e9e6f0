package stripetest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Options configure a fake Stripe that is used manually.
type Options struct {
	Listen string       // address to listen on, such as 127.0.0.1:12111
	Hook   string       // address of the platform's webhook endpoint
	Log    *slog.Logger // receives events that cannot be delivered
}

// redeliver is the interval at which unacknowledged events are sent.
const redeliver = 500 * time.Millisecond

// Run serves a fake Stripe until ctx ends: the API, and pages with the actions of
// the buyer and the bank. It delivers events in order, each until the endpoint
// acknowledges it. It calls ready once it listens.
func Run(ctx context.Context, opts Options, ready func(*Stripe)) error {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", opts.Listen)
	if err != nil {
		return err
	}
	s := newStripe(&logReporter{log: opts.Log}, opts.Hook)
	s.client = &http.Client{Timeout: 10 * time.Second}
	s.URL = "http://" + listener.Addr().String()
	server := &http.Server{Handler: s.pages(), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	ready(s)
	tick := time.NewTicker(redeliver)
	defer tick.Stop()
	for {
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return server.Close()
		case <-tick.C:
			s.deliverInOrder()
		}
	}
}

// deliverInOrder sends the undelivered events, in order, up to the first one that is not
// acknowledged.
func (s *Stripe) deliverInOrder() {
	for _, e := range s.Undelivered() {
		if s.Deliver(e)/100 != 2 {
			return
		}
	}
}

// logReporter is the reporter outside of a test. It logs a repeated failure once.
type logReporter struct {
	log  *slog.Logger
	last string
}

func (r *logReporter) Helper() {}

func (r *logReporter) Error(args ...any) { r.Errorf("%s", fmt.Sprint(args...)) }

func (r *logReporter) Errorf(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); text != r.last {
		r.last = text
		r.log.Warn(text)
	}
}

// Fatalf panics: the pages check before they act.
func (r *logReporter) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
