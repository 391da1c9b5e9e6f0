package app_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
	"github.com/stoahq/stoa/internal/webhooks"
)

// hook is an endpoint that keeps what it gets. It is safe for concurrent use.
type hook struct {
	*httptest.Server
	mu    sync.Mutex
	calls []*http.Request
	body  []string
}

func startHook(t *testing.T) *hook {
	t.Helper()
	h := &hook{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.calls, h.body = append(h.calls, r), append(h.body, string(body))
		_, _ = io.WriteString(w, "thanks")
	}))
	t.Cleanup(h.Close)
	return h
}

// got returns the body of the first call about an event of that type, and its headers.
func (h *hook) got(t *testing.T, eventType string) (body string, header http.Header) {
	t.Helper()
	testkit.Eventually(t, testkit.Timeout, "the endpoint gets "+eventType, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		for i, text := range h.body {
			if strings.Contains(text, `"type":"`+eventType+`"`) {
				body, header = text, h.calls[i].Header
				return true
			}
		}
		return false
	})
	return body, header
}

// TestWebhooks follows a store by an endpoint, by the list, by the stream and by 'stoa
// webhooks listen'.
func TestWebhooks(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			s := startServer(t, testConfig(t, engine))
			owner, id, _ := connected(t, s, "owner@example.com")
			owner.proven()
			base, endpoint, local := "/api/stores/"+id, startHook(t), startHook(t)
			made := owner.call("POST", base+"/webhooks", object{"url": endpoint.URL, "types": []string{"store.suspended"}}).want(http.StatusCreated)
			streamed := owner.stream(base+"/events/stream?type=store.suspended", "")
			stderr := &syncBuffer{}
			go func() {
				cli.Run(t.Context(), []string{
					"webhooks", "listen", id, "--forward-to=" + local.URL, "--type=store.suspended",
					"--data-dir=" + s.Cfg.DataDir, "--master-db-url=" + s.Cfg.MasterDBURL.Reveal(),
				}, &syncBuffer{}, stderr)
			}()
			testkit.Eventually(t, testkit.Timeout, "the command listens", func() bool { return strings.Contains(stderr.String(), "waiting for events") })
			owner.call("POST", base+"/suspend", nil).want(http.StatusOK)

			body, header := endpoint.got(t, "store.suspended")
			verify(t, made.text("secret"), body, header)
			_, secret, _ := strings.Cut(stderr.String(), "secret: ")
			forwarded, header := local.got(t, "store.suspended")
			verify(t, strings.Fields(secret)[0], forwarded, header)
			if forwarded != body {
				t.Errorf("the command forwards\n%s, the endpoint gets\n%s", forwarded, body)
			}
			event := <-streamed
			if event.data != body {
				t.Errorf("the stream has\n%s, the endpoint gets\n%s", event.data, body)
			}
			listed := owner.call("GET", base+"/events?limit=1", nil).want(http.StatusOK).list("data")[0].(object)
			if !strings.Contains(body, listed["id"].(string)) {
				t.Errorf("the list has %v", listed)
			}
			// A reader who lost the connection goes on where it was.
			owner.call("POST", base+"/resume", nil).want(http.StatusOK)
			if again := <-owner.stream(base+"/events/stream", event.id); !strings.Contains(again.data, "store.resumed") {
				t.Errorf("after the last event comes %s", again.data)
			}
			delivery := owner.call("GET", base+"/webhooks/"+made.text("id")+"/deliveries", nil).want(http.StatusOK).list("data")[0].(object)
			owner.call("GET", base+"/webhooks/"+made.text("id")+"/deliveries/"+delivery["id"].(string), nil).want(http.StatusOK).
				is("succeeded", "state").is("store.suspended", "event", "type")
			owner.call("GET", base+"/events?type=store.exploded", nil).problem(http.StatusUnprocessableEntity, "invalid_request")
		})
	}
}

func verify(t *testing.T, secret, body string, header http.Header) {
	t.Helper()
	w, err := standardwebhooks.NewWebhook(secret)
	testkit.Must(t, err)
	testkit.Must(t, w.Verify([]byte(body), header))
}

// streamEvent is a server-sent event.
type streamEvent struct{ id, data string }

// stream opens a stream of events.
func (c client) stream(path, last string) <-chan streamEvent {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.url+path, nil)
	testkit.Must(c.t, err)
	req.Header.Set("Authorization", "Bearer "+c.token)
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	res, err := http.DefaultClient.Do(req) //nolint:bodyclose // the goroutine closes it
	testkit.Must(c.t, err)
	if res.StatusCode != http.StatusOK {
		c.t.Fatalf("GET %s: %d", path, res.StatusCode)
	}
	out := make(chan streamEvent, 100)
	go func() {
		defer res.Body.Close()
		var e streamEvent
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				e.id = id
			}
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				e.data = data
				out <- e
			}
		}
	}()
	return out
}

// checkEvents checks that each event has exactly the members that the catalogue lists.
func checkEvents(t *testing.T, s *server) {
	t.Helper()
	found, err := webhooks.StreamRange{UpTo: math.MaxInt64, Limit: 10_000}.Read(t.Context(), s.Master, s.Master.Engine)
	testkit.Must(t, err)
	if len(found) < 20 {
		t.Errorf("there are only %d events", len(found))
	}
	for _, e := range found {
		var data map[string]string
		testkit.Must(t, json.Unmarshal([]byte(e.Data), &data))
		kind, ok := events.KindOf(e.Type)
		var want, got []string
		for _, m := range kind.Members {
			want = append(want, m.Name)
		}
		for name := range data {
			got = append(got, name)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !ok || !slices.Equal(want, got) {
			t.Errorf("%s has %v, the catalogue lists %v", e.Type, got, want)
		}
	}
}

// TestNoEventIsLostInKills kills a server again and again while a store changes. In the end
// the endpoint has got every event that was recorded, and nothing else.
func TestNoEventIsLostInKills(t *testing.T) {
	t.Parallel()
	kills := 50
	if testing.Short() {
		kills = 5
	}
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			p := startProcess(t, cfg)
			owner, _ := register(t, serverAt(p.url), "owner@example.com")
			master := masterdbtest.Open(t, cfg.MasterDBURL.Reveal())
			testkit.Must(t, master.Tx(t.Context(), func(tx *masterdb.Tx) error {
				_, err := tx.Exec(t.Context(), `UPDATE users SET email_verified = TRUE`)
				return err
			}))
			id := owner.call("POST", "/api/stores", object{"name": "Shop"}).want(http.StatusCreated).text("id")
			base, endpoint := "/api/stores/"+id, startHook(t)
			owner.call("POST", base+"/webhooks", object{"url": endpoint.URL}).want(http.StatusCreated)
			for i := range kills {
				for n := range 3 {
					owner.call("POST", base+"/hostnames", object{"hostname": fmt.Sprintf("shop%d-%d.example.com", i, n)}).want(http.StatusCreated)
					owner.call("DELETE", fmt.Sprintf("%s/hostnames/shop%d-%d.example.com", base, i, n), nil).want(http.StatusNoContent)
				}
				<-time.After(time.Duration(i) * 100 * time.Millisecond / time.Duration(kills))
				p.kill()
				p = startProcess(t, cfg)
				owner.url = p.url
			}
			testkit.Eventually(t, testkit.Timeout, "all is published", func() bool {
				var n int
				testkit.Must(t, master.Get(t.Context(), &n, `SELECT count(*) FROM events WHERE position IS NULL`))
				return n == 0
			})
			want := map[string]bool{}
			for cursor := ""; ; {
				page := owner.call("GET", base+"/events?limit=100&cursor="+cursor, nil).want(http.StatusOK)
				for _, e := range page.list("data") {
					if strings.HasPrefix(e.(object)["type"].(string), "hostname.") {
						want[e.(object)["id"].(string)] = true
					}
				}
				if page.body["nextCursor"] == nil {
					break
				}
				cursor = page.text("nextCursor")
			}
			if len(want) != 6*kills {
				t.Errorf("%d events are listed, %d changes were made", len(want), 6*kills)
			}
			testkit.Eventually(t, testkit.Timeout, "all events have arrived", func() bool {
				endpoint.mu.Lock()
				defer endpoint.mu.Unlock()
				got := map[string]bool{}
				for _, call := range endpoint.calls {
					got[call.Header.Get("webhook-id")] = true
				}
				for event := range want {
					if !got[event] {
						return false
					}
				}
				return true
			})
		})
	}
}
