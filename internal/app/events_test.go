package app_test

import (
	"bufio"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// event is one event of a stream.
type event struct {
	id   string
	data object
}

// eventStream is an open connection to a store's events.
type eventStream struct {
	t   *testing.T
	res *http.Response
	in  *bufio.Reader
}

// events opens a stream of the store's run after the event with the id after.
func (c client) events(store, after string) *eventStream {
	c.t.Helper()
	return c.eventsOf("/api/stores/"+store+"/provisioning/events", after)
}

// eventsOf opens a stream after the event with the id after.
func (c client) eventsOf(path, after string) *eventStream {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), "GET", c.url+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = res.Body.Close() })
	return &eventStream{c.t, res, bufio.NewReader(res.Body)}
}

// next returns the next event, or false at the end of the stream.
func (s *eventStream) next() (event, bool) {
	s.t.Helper()
	var e event
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return e, false
		}
		line = strings.TrimSuffix(line, "\n")
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			e.id = id
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			if err := json.Unmarshal([]byte(data), &e.data); err != nil {
				s.t.Fatalf("%v in %s", err, line)
			}
		}
		if line == "" && e.id != "" {
			return e, true
		}
	}
}

func (s *eventStream) rest() (all []event) {
	s.t.Helper()
	for {
		e, ok := s.next()
		if !ok {
			return all
		}
		all = append(all, e)
	}
}

// TestEventStream checks that a stream delivers every change of a run once and in
// order: live, after a broken connection, and on another replica.
func TestEventStream(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			s := startServer(t, cfg)
			second := *cfg
			other := startServer(t, &second)
			c, id := register(t, s, "owner@example.com")
			elsewhere := c
			elsewhere.url = other.URL
			c.call("GET", "/api/stores/"+id+"/provisioning/events", nil).problem(http.StatusNotFound, "not_found")

			silent, release := silentServer(t)
			c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "mysql", "connectionString": "mysql://u:p@" + silent + "/d"},
				"Prefer", "wait=0").want(http.StatusAccepted)
			live := c.events(id, "")
			if got := live.res.Header.Get("Content-Type"); live.res.StatusCode != http.StatusOK || got != "text/event-stream" {
				t.Fatalf("status %d, %s", live.res.StatusCode, got)
			}
			var seen []event
			for len(seen) < 3 { // queued, running, step connect running: the run now waits
				e, ok := live.next()
				if !ok {
					t.Fatalf("the stream ended after %v", seen)
				}
				seen = append(seen, e)
			}
			if step, state := seen[2].data["step"], seen[2].data["state"]; step != "connect" || state != "running" {
				t.Errorf("the third event is %v", seen[2].data)
			}
			_ = live.res.Body.Close() // the connection breaks
			resumed := elsewhere.events(id, seen[2].id)
			release()
			seen = append(seen, resumed.rest()...)
			last := seen[len(seen)-1]
			if last.data["step"] != nil || last.data["state"] != "failed" || last.data["error"].(object)["code"] != "database_unreachable" {
				t.Errorf("the last event is %v", last.data)
			}

			whole := c.events(id, "").rest()
			if len(whole) != len(seen) {
				t.Errorf("%d events in one go, %d with a break", len(whole), len(seen))
			}
			for i := range min(len(whole), len(seen)) {
				if whole[i].id != seen[i].id {
					t.Errorf("event %d has id %s in one go and %s with a break", i, whole[i].id, seen[i].id)
				}
			}
			if status := elsewhere.events(id, last.id).res.StatusCode; status != http.StatusNoContent {
				t.Errorf("after the end: status %d", status)
			}
			if got := c.events(id, "nonsense.7").res.StatusCode; got != http.StatusOK {
				t.Errorf("an id of another kind: status %d", got)
			}
		})
	}
}

// silentServer accepts connections and never replies. After release it does not exist
// any more.
func silentServer(t *testing.T) (address string, release func()) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				<-gone
				_ = conn.Close()
			}()
		}
	}()
	release = func() {
		select {
		case <-gone:
		default:
			_ = l.Close()
			close(gone)
		}
	}
	t.Cleanup(release)
	return l.Addr().String(), release
}

// TestEventStreamsAreBounded checks the limit of streams of one store, and that a stop
// of the server ends all of them.
func TestEventStreamsAreBounded(t *testing.T) {
	t.Parallel()
	s, err := launch(t.Context(), testConfig(t, masterdb.SQLite), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c, id := register(t, s, "owner@example.com")
	silent, release := silentServer(t)
	c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "postgresql", "connectionString": "postgres://u:p@" + silent + "/d?sslmode=disable"},
		"Prefer", "wait=0").want(http.StatusAccepted)
	var open []*eventStream
	for range 10 {
		stream := c.events(id, "")
		if stream.res.StatusCode != http.StatusOK {
			t.Fatalf("stream %d: status %d", len(open), stream.res.StatusCode)
		}
		open = append(open, stream)
	}
	a := c.call("GET", "/api/stores/"+id+"/provisioning/events", nil).problem(http.StatusTooManyRequests, "rate_limited")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	_ = open[0].res.Body.Close()
	testkit.Eventually(t, testkit.Timeout, "there is room for another", func() bool { return c.events(id, "").res.StatusCode == http.StatusOK })

	release()
	begun := time.Now()
	if err := s.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if d := time.Since(begun); d > 25*time.Second {
		t.Errorf("streams held up the stop for %v", d)
	}
	for _, stream := range open[1:] {
		stream.rest()
	}
}

// TestStreamsOfMovesAndRestores checks that a stream of a move and of a restore sends each
// state once until the last one, and that nothing follows that.
func TestStreamsOfMovesAndRestores(t *testing.T) {
	t.Parallel()
	managed, _ := newManagedWorld(t, os.Getenv(tenantdbtest.PostgresEnv))
	c, base := managed.api, "/api/stores/"+managed.id
	follow := func(path, state string, least int) {
		t.Helper()
		live := c.eventsOf(path, "")
		if got := live.res.Header.Get("Content-Type"); live.res.StatusCode != http.StatusOK || got != "text/event-stream" {
			t.Fatalf("%s: status %d, %s", path, live.res.StatusCode, got)
		}
		all := live.rest()
		for i, e := range all[1:] {
			if e.id == all[i].id {
				t.Errorf("%s: %v was sent twice", path, e.data)
			}
		}
		last := all[len(all)-1]
		if len(all) < least || last.data["state"] != state {
			t.Errorf("%s: %d events, the last one is %v", path, len(all), last.data)
		}
		c.call("GET", path, nil, "Last-Event-ID", last.id).want(http.StatusNoContent)
		if again := c.eventsOf(path, "another").rest(); len(again) != 1 || again[0].id != last.id {
			t.Errorf("%s: after another event: %v", path, again)
		}
	}
	backup := c.call("POST", base+"/backups", nil).want(http.StatusAccepted).text("id")
	c.archived(managed.id, backup)
	c.call("POST", base+"/backups/"+backup+"/restore", nil).want(http.StatusAccepted)
	follow(base+"/backups/restore/events", "succeeded", 2)
	move := c.call("POST", base+"/moves", object{"managed": "sqlite"}).want(http.StatusAccepted).text("id")
	follow(base+"/moves/"+move+"/events", "kept", 2)
	c.call("POST", base+"/moves/"+move+"/finish", nil).want(http.StatusAccepted)
	follow(base+"/moves/"+move+"/events", "succeeded", 1)
}
