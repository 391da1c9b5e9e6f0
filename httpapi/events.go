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
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/provisioning"
)

func (a *api) eventRoutes() {
	schema := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[eventView](), true, "")
	route(a, routeOptions{timeout: streamLifetime + requestTimeout, rate: rateCaller, scope: scope(access.ReadStore), maxBody: noBody},
		huma.Operation{Method: http.MethodGet, Path: "/api/stores/{id}/provisioning/events", Tags: []string{"Stores"},
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
	Error   *faultView         `json:"error" doc:"Why it failed or, of a running step, why it is being tried again"`
	At      time.Time          `json:"at"`
}

func newEventView(e provisioning.Event) eventView {
	v := eventView{RunID: e.Run, Attempt: e.Attempt, State: e.State, Error: newFaultView(e.Fault), At: e.At}
	if e.Step != "" {
		v.Step = &e.Step
	}
	return v
}

// An event's id is its position: the run and the event's number in it.
func formatPosition(p provisioning.Position) string {
	return p.Run.String() + "." + strconv.FormatInt(p.Seq, 10)
}

// parsePosition takes what is no position of ours as none given.
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
	streamLifetime  = 10 * time.Minute // then the client connects again, with its present rights
	streamHeartbeat = 15 * time.Second // proxies end a connection that is silent for long
	streamPause     = 400 * time.Millisecond
	streamWrite     = 20 * time.Second // a client that takes nothing for so long is gone
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
	// The first look is before the answer's status, which may say no.
	events, ended, err := a.Provisioning.Events(ctx, principal(ctx), id, at)
	if err != nil {
		return nil, err
	}
	if ended && len(events) == 0 {
		return &huma.StreamResponse{Body: func(ctx huma.Context) { ctx.SetStatus(http.StatusNoContent) }}, nil
	}
	leave, err := a.streams.enter(id, principal(ctx))
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer leave()
		_, w := humago.Unwrap(ctx)
		s := &stream{api: a, store: id, at: at, w: w, control: http.NewResponseController(w)}
		s.authenticate = func() (access.Principal, error) { return a.principal(ctx) }
		s.run(ctx.Context(), events, ended)
	}}, nil
}

// stream is one connection that follows a store's run.
type stream struct {
	*api
	store   stoa.StoreID
	at      provisioning.Position
	w       http.ResponseWriter
	control *http.ResponseController
	// authenticate asks again who the caller is: a session or key that has
	// ended meanwhile ends the stream.
	authenticate func() (access.Principal, error)
}

// run sends events until there are no more, the client or the server goes, or
// the time is up. Any replica may be the one that works: it looks in the
// master.
func (s *stream) run(ctx context.Context, events []provisioning.Event, ended bool) {
	ctx, cancel := context.WithTimeout(ctx, streamLifetime)
	defer cancel()
	_ = s.control.SetReadDeadline(time.Time{}) // the request's own would end the connection
	s.w.Header().Set("Content-Type", "text/event-stream")
	s.w.Header().Set("X-Accel-Buffering", "no") // nginx would keep events back
	s.w.WriteHeader(http.StatusOK)
	tick, beat := time.NewTicker(streamPause), time.NewTicker(streamHeartbeat)
	defer tick.Stop()
	defer beat.Stop()
	if s.send("retry: 2000\n\n") != nil {
		return
	}
	for {
		if s.sendEvents(events) != nil || ended {
			return
		}
		select {
		case <-tick.C:
		case <-beat.C:
			events = nil
			if s.send(": still here\n\n") != nil {
				return
			}
			continue
		case <-s.Stopping:
			_ = s.send(fmt.Sprintf("retry: %d\n: this server stops; connect again with Last-Event-ID\n\n", reconnectDelay.Milliseconds()))
			return
		case <-ctx.Done():
			return
		}
		p, err := s.authenticate()
		if err == nil {
			events, ended, err = s.Provisioning.Events(ctx, p, s.store, s.at)
		}
		if err != nil {
			var known *stoa.Error // such as the end of the caller's rights
			if ctx.Err() == nil && !errors.As(err, &known) {
				s.Log.WarnContext(ctx, "a stream of events ends early", "requestId", requestID(ctx), "err", err)
			}
			return // the client comes back and is told
		}
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

// streams counts the open streams: each costs a connection and a look at the
// master now and then.
type streams struct {
	mu      sync.Mutex
	all     int
	byStore map[stoa.StoreID]int
	byUser  map[stoa.UserID]int // with the keys that act for them
}

const (
	maxStreams         = 200
	maxStreamsPerStore = 10
	maxStreamsPerUser  = 20
)

// enter counts one more, until leave is called, or fails with rate_limited.
func (s *streams) enter(store stoa.StoreID, p access.Principal) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= maxStreams || s.byStore[store] >= maxStreamsPerStore || s.byUser[p.UserID] >= maxStreamsPerUser {
		busy := stoa.Errorf(stoa.RateLimited, "Too many streams are open. Close one, or ask for the run itself: GET /api/stores/%s/provisioning.", store)
		busy.RetryAfter = 10 * time.Second
		return nil, busy
	}
	if s.byStore == nil {
		s.byStore, s.byUser = map[stoa.StoreID]int{}, map[stoa.UserID]int{}
	}
	s.all++
	s.byStore[store]++
	s.byUser[p.UserID]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all--
		if s.byStore[store]--; s.byStore[store] == 0 {
			delete(s.byStore, store)
		}
		if s.byUser[p.UserID]--; s.byUser[p.UserID] == 0 {
			delete(s.byUser, p.UserID)
		}
	}, nil
}
