package webhooks_test

import (
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
	"github.com/stoahq/stoa/internal/webhooks"
)

// hang answers nothing until the caller leaves.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// TestHostileEndpoints checks what becomes of a delivery to endpoints that misbehave: each
// attempt ends in time, keeps little, and is recorded in words that say what is wrong.
func TestHostileEndpoints(t *testing.T) {
	t.Parallel()
	db := masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite))
	p := newPlatform(t, db)
	opts := p.options(t, quick)
	opts.Limit = 0
	s, _ := p.start(t, opts)
	selfSigned := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("called without a valid certificate") }))
	selfSigned.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(selfSigned.Close)
	internal := startEndpoint(t, nil)
	for name, test := range map[string]struct {
		url   string
		state webhooks.DeliveryState
		fault string
		kept  int // bytes of the answer, at most
	}{
		"hangs":            {url: startEndpoint(t, hang).URL, state: webhooks.Failed, fault: "did not answer in time"},
		"drips headers":    {url: rawEndpoint(t, func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\nX: ") }), state: webhooks.Failed, fault: "did not answer in time"},
		"huge headers":     {url: rawEndpoint(t, func(c net.Conn) { flood(c, "HTTP/1.1 200 OK\r\nX: ") }), state: webhooks.Failed, fault: "cannot be reached, or its answer is no HTTP"},
		"not HTTP":         {url: rawEndpoint(t, func(c net.Conn) { flood(c, "") }), state: webhooks.Failed, fault: "cannot be reached, or its answer is no HTTP"},
		"closes":           {url: rawEndpoint(t, func(net.Conn) {}), state: webhooks.Failed, fault: "closed the connection"},
		"endless body":     {url: rawEndpoint(t, func(c net.Conn) { flood(c, "HTTP/1.1 200 OK\r\n\r\n") }), state: webhooks.Succeeded, kept: 4 << 10},
		"endless refusal":  {url: rawEndpoint(t, func(c net.Conn) { flood(c, "HTTP/1.1 500 Oops\r\n\r\n") }), state: webhooks.Failed, fault: "answered 500", kept: 4 << 10},
		"drips its body":   {url: rawEndpoint(t, func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\n\r\n") }), state: webhooks.Succeeded, kept: 100},
		"bytes, no text":   {url: startEndpoint(t, write("\xff\x00\xfe")).URL, state: webhooks.Succeeded, kept: 12},
		"redirects":        {url: startEndpoint(t, redirect(internal.URL)).URL, state: webhooks.Failed, fault: "redirect (307)"},
		"own certificate":  {url: selfSigned.URL, state: webhooks.Failed, fault: "certificate"},
		"TLS at plain":     {url: strings.Replace(startEndpoint(t, nil).URL, "http:", "https:", 1), state: webhooks.Failed, fault: "does not speak TLS"},
		"forbidden":        {url: "http://169.254.169.254/latest/meta-data", state: webhooks.Failed, fault: "address that may be reached"},
		"forbidden by v6":  {url: "http://[fd00:ec2::254]/", state: webhooks.Failed, fault: "address that may be reached"},
		"no such name":     {url: "http://does-not-exist.invalid/", state: webhooks.Failed, fault: "address that may be reached"},
		"nobody listening": {url: "http://127.0.0.1:1/", state: webhooks.Failed, fault: "cannot be reached"},
		"plain and public": {url: "http://1.1.1.1/", state: webhooks.Failed, fault: "has to use https"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, _ := p.add(t, s, test.url)
			d, err := s.Test(t.Context(), p.owner(), p.Store, e.ID)
			testkit.Must(t, err)
			var attempts []webhooks.Attempt
			testkit.Eventually(t, 30*time.Second, "the delivery ends", func() bool {
				d, attempts, _, err = s.Delivery(t.Context(), p.owner(), p.Store, e.ID, d.ID)
				testkit.Must(t, err)
				return d.State != webhooks.Waiting
			})
			last := attempts[len(attempts)-1]
			if d.State != test.state || !strings.Contains(last.Fault, test.fault) || len(last.Answer) > test.kept {
				t.Errorf("%s: %q, with %d bytes of the answer", d.State, last.Fault, len(last.Answer))
			}
			if last.TookMS > 5000 {
				t.Errorf("it took %d ms", last.TookMS)
			}
		})
	}
	t.Cleanup(func() {
		if len(internal.calls) > 0 {
			t.Error("a redirect was followed")
		}
	})
}

// rawEndpoint starts a server that reads a request and lets answer write to the connection.
func rawEndpoint(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := c.Read(make([]byte, 64<<10)); err == nil {
					answer(c)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// flood writes text and then bytes until the other side leaves.
func flood(c net.Conn, text string) {
	_, err := io.WriteString(c, text)
	for many := bytes.Repeat([]byte("x"), 64<<10); err == nil; {
		_, err = c.Write(many)
	}
}

// drip writes text and then a byte now and then until the other side leaves.
func drip(c net.Conn, text string) {
	_, err := io.WriteString(c, text)
	for tick := time.NewTicker(100 * time.Millisecond); err == nil; <-tick.C {
		_, err = io.WriteString(c, "x")
	}
}

func write(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

func redirect(url string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, url, http.StatusTemporaryRedirect) }
}

// TestOneEndpointDelaysNoOther checks that an endpoint that hangs, with many events waiting,
// does not keep others from theirs.
func TestOneEndpointDelaysNoOther(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		p := newPlatform(t, db)
		s, _ := p.start(t, p.options(t, webhooks.Schedule{
			Timeout: 20 * time.Second, Retries: []time.Duration{time.Hour}, Backoffs: []time.Duration{time.Hour}, DisableAfter: time.Hour, Poll: 20 * time.Millisecond,
		}))
		hanging, other := startEndpoint(t, hang), startEndpoint(t, nil)
		p.add(t, s, hanging.URL)
		p.add(t, s, other.URL)
		for range 50 {
			p.record(t, audit.StoreSuspended)
		}
		seen := map[string]bool{}
		for len(seen) < 50 {
			seen[other.next(t).event.ID] = true
		}
		if n := len(hanging.calls); n > 8 {
			t.Errorf("%d calls to the endpoint that hangs, at most 8 at a time are made", n)
		}
		hanging.CloseClientConnections()
	})
}

// TestEndpointsAreDisabled checks that an endpoint that answers 410, or accepts nothing for
// long, receives no more, and that the owners are told once.
func TestEndpointsAreDisabled(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		p := newPlatform(t, db)
		schedule := quick
		schedule.DisableAfter = time.Nanosecond
		schedule.Retries = []time.Duration{time.Millisecond, time.Millisecond, time.Millisecond}
		s, _ := p.start(t, p.options(t, schedule))
		mails := 0
		for reason, status := range map[string]int{webhooks.Gone: http.StatusGone, webhooks.Failing: http.StatusInternalServerError} {
			server := startEndpoint(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
			e, _ := p.add(t, s, server.URL, "store.suspended")
			p.record(t, audit.StoreSuspended)
			testkit.Eventually(t, 30*time.Second, "it is disabled", func() bool {
				now, err := s.Get(t.Context(), p.owner(), p.Store, e.ID)
				testkit.Must(t, err)
				return now.State == webhooks.Disabled && now.DisabledReason == reason
			})
			mails++
			testkit.Eventually(t, 30*time.Second, "the owner is told", func() bool { return len(p.mail.Mails()) == mails })
			if _, err := s.Test(t.Context(), p.owner(), p.Store, e.ID); stoa.CodeOf(err) != stoa.WebhookNotEnabled {
				t.Errorf("a test of it: %v", err)
			}
			testkit.Must(t, s.Delete(t.Context(), p.owner(), p.Store, e.ID, nil))
		}
	})
}

// TestEnabledEndpointsGoOn checks that an endpoint that is enabled again receives what it has
// missed, unless its owner wants to skip that.
func TestEnabledEndpointsGoOn(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		p := newPlatform(t, db)
		s, _ := p.start(t, p.options(t, quick))
		server := startEndpoint(t, nil)
		e, _ := p.add(t, s, server.URL)
		set := func(enabled, skip bool) {
			t.Helper()
			_, err := s.Update(t.Context(), p.owner(), p.Store, e.ID, webhooks.Change{Enabled: &enabled, SkipMissed: skip})
			testkit.Must(t, err)
		}
		record := func(action string) {
			t.Helper()
			p.record(t, action)
			p.published(t)
		}
		set(false, false)
		record(audit.StoreSuspended)
		set(true, false)
		if got := server.next(t).event.Type; got != "store.suspended" {
			t.Errorf("got %s", got)
		}
		set(false, false)
		record(audit.StoreResumed)
		set(true, true)
		record(audit.StoreDeleting)
		if got := server.next(t).event.Type; got != "store.deletion_scheduled" {
			t.Errorf("got %s", got)
		}
	})
}

// TestRetryAfterIsHonoured checks that an endpoint that asks for a pause gets it, for as long
// as a day.
func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	db := masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite))
	p := newPlatform(t, db)
	s, _ := p.start(t, p.options(t, quick))
	server := startEndpoint(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "99999999")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	e, _ := p.add(t, s, server.URL)
	p.record(t, audit.StoreSuspended)
	server.next(t)
	var now webhooks.Endpoint
	testkit.Eventually(t, 30*time.Second, "the attempt is recorded", func() (ok bool) {
		var err error
		now, err = s.Get(t.Context(), p.owner(), p.Store, e.ID)
		testkit.Must(t, err)
		return now.FailingSince != nil
	})
	if wait := now.NextAt.Sub(*now.FailingSince); wait < 23*time.Hour || wait > 25*time.Hour {
		t.Errorf("the next attempt is after %s", wait)
	}
}
