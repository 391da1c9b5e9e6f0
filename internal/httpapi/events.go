package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/provisioning"
)

func (a *api) eventRoutes() {
	a.stateRoutes()
	schema := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[eventView](), true, "")
	route(a, routeOptions{timeout: streamLifetime + requestTimeout, rate: rateCaller, scope: scope(authz.ReadStore), maxBody: noBody},
		huma.Operation{OperationID: "provisioning.events", Method: http.MethodGet, Path: "/api/stores/{id}/provisioning/events", Tags: []string{"Stores"},
			Summary: "Follow the store's last provisioning run",
			Description: "Server-sent events: one for each change of the run from its beginning, then each as it happens. The stream ends after the run's end, " +
				"and also after some minutes or when the server stops: connect again with the last id as Last-Event-ID, as EventSource does by itself, " +
				"and it goes on where it was, on any server. Comments keep the connection alive.",
			Responses: map[string]*huma.Response{
				"200": {Description: "Events; data of each is the JSON object described here", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: schema}}},
				"204": {Description: "The run is over and Last-Event-ID was its last event"},
			}, Errors: []int{401, 404, 422, 429}}, a.followProvisioning)
}

// eventView is the data of one event.
type eventView struct {
	RunID   stoa.RunID         `json:"runId" format:"uuid"`
	Attempt int                `json:"attempt"`
	Step    *string            `json:"step" doc:"The step that changed; null when the run itself did"`
	State   provisioning.State `json:"state" enum:"queued,running,succeeded,failed" doc:"Of the step or of the run"`
	Error   *faultView         `json:"error" doc:"Why it failed or, of a running step, why it is being tried again; null if it did not"`
	At      time.Time          `json:"at"`
}

func newEventView(e provisioning.Event) eventView {
	v := eventView{RunID: e.Run, Attempt: e.Attempt, State: e.State, Error: newFaultView(e.Fault), At: e.At}
	if e.Step != "" {
		v.Step = &e.Step
	}
	return v
}

// formatPosition returns an event's id: the run and the event's number in it.
func formatPosition(p provisioning.Position) string {
	return p.Run.String() + "." + strconv.FormatInt(p.Seq, 10)
}

// parsePosition parses the id of an event. It returns the zero position for a text that
// formatPosition does not write.
func parsePosition(s string) provisioning.Position {
	run, seq, _ := strings.Cut(s, ".")
	id, err := stoa.ParseID[stoa.RunID](run)
	n, err2 := strconv.ParseInt(seq, 10, 64)
	if err != nil || err2 != nil {
		return provisioning.Position{}
	}
	return provisioning.Position{Run: id, Seq: n}
}

const (
	streamLifetime  = 10 * time.Minute // then the client reconnects and is authorized again
	streamHeartbeat = 15 * time.Second // proxies close a connection that is idle for long
	// streamPoll is how often a stream looks for events, and whether its caller
	// may still see them, when no notification arrives.
	streamPoll  = time.Second
	streamWrite = 20 * time.Second // a client that reads nothing for this long has gone
)

type eventsInput struct {
	StorePath
	LastEventID string `header:"Last-Event-ID" maxLength:"200" doc:"The id of the last event seen; without it, from the run's beginning"`
}

func (a *api) followProvisioning(ctx context.Context, in *eventsInput) (*huma.StreamResponse, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	at := parsePosition(in.LastEventID)
	// The first read precedes the response's status, which may be an error.
	events, ended, err := a.Provisioning.Events(ctx, principal(ctx), id, at)
	if err != nil {
		return nil, err
	}
	if ended && len(events) == 0 {
		return &huma.StreamResponse{Body: func(ctx huma.Context) { ctx.SetStatus(http.StatusNoContent) }}, nil
	}
	release, err := a.streams.acquire(id, principal(ctx))
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer release()
		_, w := humago.Unwrap(ctx)
		s := &stream{api: a, request: ctx, store: id, at: at, w: w, control: http.NewResponseController(w)}
		s.run(ctx.Context(), events, ended)
	}}, nil
}

// stream is one connection that follows the runs of a store. It is not safe for
// concurrent use.
type stream struct {
	*api
	request huma.Context
	store   stoa.StoreID
	at      provisioning.Position // of the last event sent
	w       http.ResponseWriter
	control *http.ResponseController

	joined stoa.RunID // the run whose notifications woken receives
	woken  <-chan struct{}
	leave  func() // ends the notifications; nil before the first join
}

// run sends events until there are no more, the client has gone, the server
// stops, or streamLifetime has passed. Any replica may execute the run: events
// are read from the master database.
func (s *stream) run(ctx context.Context, events []provisioning.Event, ended bool) {
	ctx, cancel := context.WithTimeout(ctx, streamLifetime)
	defer cancel()
	if s.open() != nil {
		return
	}
	defer s.unsubscribe()
	poll, heartbeat := time.NewTicker(streamPoll), time.NewTicker(streamHeartbeat)
	defer poll.Stop()
	defer heartbeat.Stop()
	for {
		if s.sendEvents(events) != nil || ended {
			return
		}
		// Events that were recorded before the subscription are not notified: read once
		// more after it, and again until no events are left.
		if subscribed := s.subscribe(); !subscribed && len(events) == 0 && !s.wait(ctx, poll.C, heartbeat.C) {
			return
		}
		var ok bool
		if events, ended, ok = s.read(ctx); !ok {
			return
		}
	}
}

// open sends the beginning of the answer.
func (s *stream) open() error {
	_ = s.control.SetReadDeadline(time.Time{}) // the request's deadline would end the connection
	s.w.Header().Set("Content-Type", "text/event-stream")
	s.w.Header().Set("X-Accel-Buffering", "no") // nginx would buffer events
	s.w.WriteHeader(http.StatusOK)
	return s.send("retry: 2000\n\n")
}

// subscribe makes woken receive the notifications of the run at the stream's
// position. It reports whether it did not receive them before.
func (s *stream) subscribe() bool {
	if s.leave != nil && s.joined == s.at.Run {
		return false
	}
	s.unsubscribe()
	s.joined = s.at.Run
	s.woken, s.leave = s.Provisioning.JoinEvents(s.joined)
	return true
}

func (s *stream) unsubscribe() {
	if s.leave != nil {
		s.leave()
	}
}

// wait returns true when it is time to read events, and false when the stream is
// to end.
func (s *stream) wait(ctx context.Context, poll, heartbeat <-chan time.Time) bool {
	for {
		select {
		case <-s.woken:
			return true
		case <-poll:
			return true
		case <-heartbeat:
			if s.send(": still here\n\n") != nil {
				return false
			}
		case <-s.Stopping:
			_ = s.send(fmt.Sprintf("retry: %d\n: this server stops; connect again with Last-Event-ID\n\n", reconnectDelay.Milliseconds()))
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// read returns the events after the stream's position. It authenticates the
// caller again: the end of a session or key ends the stream. ok is false when the
// stream is to end; the client reconnects and receives the error.
func (s *stream) read(ctx context.Context) (events []provisioning.Event, ended, ok bool) {
	p, err := s.principal(s.request)
	if err == nil {
		events, ended, err = s.Provisioning.Events(ctx, p, s.store, s.at)
	}
	s.logEnd(ctx, err)
	return events, ended, err == nil
}

// logEnd logs why a stream ends early, unless the caller is to know: such as the end of their
// rights.
func (s *stream) logEnd(ctx context.Context, err error) {
	var known *stoa.Error
	if err != nil && ctx.Err() == nil && !errors.As(err, &known) {
		s.Log.WarnContext(ctx, "event stream ended early", "request_id", requestID(ctx), "err", err)
	}
}

func (s *stream) sendEvents(events []provisioning.Event) error {
	for _, e := range events {
		data, err := json.Marshal(newEventView(e))
		if err != nil {
			return err
		}
		if err := s.send(fmt.Sprintf("id: %s\ndata: %s\n\n", formatPosition(e.Position), data)); err != nil {
			return err
		}
		s.at = e.Position
	}
	return nil
}

func (s *stream) send(text string) error {
	_ = s.control.SetWriteDeadline(time.Now().Add(streamWrite))
	if _, err := io.WriteString(s.w, text); err != nil {
		return err
	}
	return s.control.Flush()
}

// streams counts the open streams. Each needs a connection and queries to the
// master database. It is safe for concurrent use.
type streams struct {
	mu      sync.Mutex
	total   int
	byStore map[stoa.StoreID]int
	byUser  map[stoa.UserID]int // API keys count for their user
}

const (
	maxStreams         = 200
	maxStreamsPerStore = 10
	maxStreamsPerUser  = 20
)

// acquire counts one more stream until release is called, or fails with
// rate_limited. The zero store stands for those of the console, which count by user.
func (s *streams) acquire(store stoa.StoreID, p authz.Principal) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= maxStreams || !store.IsZero() && s.byStore[store] >= maxStreamsPerStore || s.byUser[p.UserID] >= maxStreamsPerUser {
		busy := stoa.Errorf(stoa.RateLimited, "Too many streams are open. Close one, or ask for the state itself now and then, by the same path without /events.")
		busy.RetryAfter = 10 * time.Second
		return nil, busy
	}
	if s.byStore == nil {
		s.byStore, s.byUser = map[stoa.StoreID]int{}, map[stoa.UserID]int{}
	}
	s.total++
	s.byStore[store]++
	s.byUser[p.UserID]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.total--
		if s.byStore[store]--; s.byStore[store] == 0 {
			delete(s.byStore, store)
		}
		if s.byUser[p.UserID]--; s.byUser[p.UserID] == 0 {
			delete(s.byUser, p.UserID)
		}
	}, nil
}
