package mail_test

import (
	"bytes"
	"log/slog"
	"net"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/mail/mailtest"
	"github.com/stoahq/stoa/internal/testkit"
	"github.com/stoahq/stoa/internal/tracing"
	"github.com/stoahq/stoa/internal/tracing/tracingtest"
)

// TestConversationsAreTraced checks the span of each conversation with a server: it is a part of
// the job's, has the server and the outcome, and nothing of persons, texts and credentials.
func TestConversationsAreTraced(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		refuse        func(string, string) int
		password      string
		nobody        bool // no server listens
		outcome, kind string
	}{
		"sent":            {outcome: "sent"},
		"refused":         {refuse: code("RCPT", 550), outcome: "refused", kind: "550"},
		"refused for now": {refuse: code(".", 451), outcome: "failed", kind: "451"},
		"wrong password":  {password: "hunter2", outcome: "failed", kind: "535"},
		"cut":             {refuse: code("DATA", 1), outcome: "failed", kind: "*mail.Error"},
		"nobody there":    {nobody: true, outcome: "failed", kind: "*net.OpError"},
		"taken, then cut": {refuse: code("RSET", 1), outcome: "sent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := mailtest.Start(t, mailtest.Options{Refuse: c.refuse, User: "stoa", Password: "right-one"})
			address, password := server.Address(), "right-one"
			if c.nobody {
				address = closedAddress(t)
			}
			if c.password != "" {
				password = c.password
			}
			collector := tracingtest.Start(t)
			sampler, err := tracing.ParseSampler("always_on", "")
			testkit.Must(t, err)
			tracer, err := tracing.New(t.Context(), tracing.Options{Endpoint: collector.URL, Service: "test", Sampler: sampler, Log: slog.New(slog.DiscardHandler)})
			testkit.Must(t, err)
			s := sender(t, mail.Options{URL: secret("smtp://stoa:" + password + "@" + address), Tracer: tracer})
			ctx, job := tracer.Job(t.Context(), "mail", "")
			err = s.Send(ctx, hello)
			if (err == nil) != (c.outcome == "sent") {
				t.Fatal(err)
			}
			job.End()
			testkit.Must(t, tracer.Close(t.Context()))
			spans := collector.Spans()
			if len(spans) != 2 || spans[0].GetName() != "smtp" || spans[0].GetKind() != tracepb.Span_SPAN_KIND_CLIENT || !bytes.Equal(spans[0].GetParentSpanId(), spans[1].GetSpanId()) {
				t.Fatalf("want the conversation as a part of the job: %v", spans)
			}
			host, _, err := net.SplitHostPort(address)
			testkit.Must(t, err)
			for name, want := range map[string]string{"server.address": host, "network.protocol.name": "smtp", "stoa.mail.outcome": c.outcome, "error.type": c.kind} {
				if got := tracingtest.Attribute(spans[0], name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if failed := spans[0].GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR; failed != (err != nil || c.kind != "") {
				t.Errorf("status %v", spans[0].GetStatus())
			}
			for _, private := range []string{"zoe", "Müller", "example.com", "no-reply", "Guten", "right-one", "hunter2", "stoa:"} {
				if bytes.Contains(collector.Bytes(), []byte(private)) {
					t.Errorf("the span has %q: %v", private, spans[0])
				}
			}
		})
	}
}

// closedAddress returns an address at which nothing listens.
func closedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	testkit.Must(t, l.Close())
	return l.Addr().String()
}
