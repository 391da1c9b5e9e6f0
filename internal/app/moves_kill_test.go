package app_test

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
)

// writer changes the description of a store without a pause, at the server that runs at the
// time. last is the last number that a server has acknowledged.
type writer struct {
	at   atomic.Pointer[client]
	last atomic.Int64
	stop chan struct{}
	wg   sync.WaitGroup
}

func writeTo(t *testing.T, c client, store string) *writer {
	t.Helper()
	w := &writer{stop: make(chan struct{})}
	w.at.Store(&c)
	w.wg.Go(func() {
		for n := int64(1); ; n++ {
			select {
			case <-w.stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if w.at.Load().acknowledges("PATCH", "/api/stores/"+store, fmt.Sprintf(`{"description":"%d"}`, n)) {
				w.last.Store(n)
			}
		}
	})
	return w
}

// end stops the writer and returns the last number that was acknowledged.
func (w *writer) end() int64 {
	close(w.stop)
	w.wg.Wait()
	return w.last.Load()
}

// acknowledges sends a request that a server may not answer, because it is killed.
func (c client) acknowledges(method, path, body string) bool {
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		return false
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

// settled waits until a move is in one of the states.
func (c client) settled(store, move string, states ...string) answer {
	c.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; <-time.After(50 * time.Millisecond) {
		m := c.call("GET", "/api/stores/"+store+"/moves/"+move, nil).want(http.StatusOK)
		for _, state := range states {
			if m.text("state") == state {
				return m
			}
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the move is not %v: %v", states, m)
		}
	}
}

// TestMovesSurviveKills kills a server at many moments of a move, of its rollback and of its
// end, while the store is written. The next server goes on, and no acknowledged write is
// lost.
func TestMovesSurviveKills(t *testing.T) {
	t.Parallel()
	raw := os.Getenv(tenantdbtest.PostgresEnv)
	if raw == "" {
		t.Skip("there is no server for managed databases")
	}
	raw, _, _ = strings.Cut(raw, "?")
	points := 24 // of each master
	if testing.Short() {
		points = 3
	}
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			more := []string{"STOA_MANAGED_DATABASE_URL=" + raw + "?sslmode=disable"}
			p := startProcess(t, cfg, more...)
			t.Cleanup(func() { p.kill() })
			owner, _ := register(t, serverAt(p.url), "owner@example.com")
			id := owner.call("POST", "/api/stores", object{"name": "Shop"}).want(http.StatusCreated).text("id")
			owner.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "managed"}).want(http.StatusOK)
			engines := []string{"sqlite", "postgresql"}
			for i := range points {
				w := writeTo(t, owner, id)
				to := engines[i%2]
				m := owner.call("POST", "/api/stores/"+id+"/moves", object{"managed": to}).want(http.StatusAccepted).text("id")
				kill := func(span time.Duration) {
					t.Helper()
					log := p.log
					t.Cleanup(func() {
						for line := range strings.Lines(log.String()) {
							if t.Failed() && strings.Contains(line, m) {
								t.Log(strings.TrimSpace(line))
							}
						}
					})
					<-time.After(span * time.Duration(i) / time.Duration(points))
					p.kill()
					p = startProcess(t, cfg, more...)
					owner.url = p.url
					next := owner
					w.at.Store(&next)
				}
				ask := func(what string) {
					t.Helper()
					owner.call("POST", "/api/stores/"+id+"/moves/"+m+"/"+what, nil).want(http.StatusAccepted)
				}
				if i%3 == 0 {
					kill(2 * time.Second)
				}
				moved := owner.settled(id, m, "kept", "failed")
				if moved.text("state") != "kept" {
					p.kill()
					t.Fatalf("the move has failed: %v\n%s", moved, p.log)
				}
				switch i % 3 {
				case 1: // back and there again
					ask("rollback")
					kill(time.Second)
					owner.settled(id, m, "rolled_back")
					m = owner.call("POST", "/api/stores/"+id+"/moves", object{"managed": to}).want(http.StatusAccepted).text("id")
					owner.settled(id, m, "kept", "failed").is("kept", "state")
					ask("finish")
				case 2:
					ask("finish")
					kill(300 * time.Millisecond)
				default:
					ask("finish")
				}
				owner.settled(id, m, "succeeded")
				last := w.end()
				now := owner.call("GET", "/api/stores/"+id, nil).want(http.StatusOK)
				now.is(to, "database", "engine")
				read, err := strconv.ParseInt(now.text("profile", "description"), 10, 64)
				if err != nil || read < last {
					t.Errorf("the store has the description %d, %v; %d was acknowledged", read, err, last)
				}
				t.Logf("killed at point %d: %d writes, frozen for %v ms", i, last, moved.at("frozenMs"))
			}
		})
	}
}
