package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
)

// stateRoutes registers the streams of moves and restores. These have a state and no recorded
// events: each event is the whole state, and a state that was replaced within streamPoll is
// not sent.
func (a *api) stateRoutes() {
	options := func(action authz.Action) routeOptions {
		return routeOptions{timeout: streamLifetime + requestTimeout, rate: rateCaller, scope: scope(action), maxBody: noBody}
	}
	route(a, options(authz.ReadStore), stateOperation(a, "moves.events", "/api/stores/{id}/moves/{moveId}/events", "Stores", "Follow a move", "the move is settled: it has ended, or can be rolled back",
		reflect.TypeFor[moveView]()), a.followMove)
	route(a, options(authz.ReadBackups), stateOperation(a, "restores.events", backupsPath+"/restore/events", "Backups", "Follow the last restore into the store", "the restore has ended",
		reflect.TypeFor[restoreView]()), a.followRestore)
}

func stateOperation(a *api, id, path, tag, summary, end string, view reflect.Type) huma.Operation {
	schema := a.huma.OpenAPI().Components.Schemas.Schema(view, true, "")
	return huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Tags: []string{tag}, Summary: summary,
		Description: "Server-sent events: the present state at once, and again whenever it has changed; its data are what the path without /events answers. The stream ends when " + end +
			", and also after some minutes or when the server stops: connect again with the last id as Last-Event-ID, as EventSource does by itself. " +
			"A state that was seen is then not sent again. Comments keep the connection alive.",
		Responses: map[string]*huma.Response{
			"200": {Description: "Events; data of each is the JSON object described here", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: schema}}},
			"204": {Description: "Nothing more will happen, and Last-Event-ID was the last event"},
		}, Errors: []int{401, 403, 404, 422, 429}}
}

type moveEventsInput struct {
	StorePath
	MoveID      string `path:"moveId" format:"uuid"`
	LastEventID string `header:"Last-Event-ID" maxLength:"200" doc:"The id of the last event seen"`
}

func (a *api) followMove(ctx context.Context, in *moveEventsInput) (*huma.StreamResponse, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	moveID, err := stoa.ParseID[stoa.MoveID](in.MoveID)
	if err != nil {
		return nil, stoa.Errorf(stoa.NotFound, "There is no such move of this store.")
	}
	return a.followState(ctx, id, in.LastEventID, func(ctx context.Context, p authz.Principal) (any, bool, error) {
		m, err := a.Moves.Get(ctx, p, id, moveID)
		return newMoveView(m), m.Settled(), err
	})
}

type restoreEventsInput struct {
	StorePath
	LastEventID string `header:"Last-Event-ID" maxLength:"200" doc:"The id of the last event seen"`
}

func (a *api) followRestore(ctx context.Context, in *restoreEventsInput) (*huma.StreamResponse, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	return a.followState(ctx, id, in.LastEventID, func(ctx context.Context, p authz.Principal) (any, bool, error) {
		r, err := a.Backups.LastRestore(ctx, p, id)
		return newRestoreView(r), r.Done(), err
	})
}

// readState reads a state for a caller. ended says that it will not change by itself.
type readState func(context.Context, authz.Principal) (view any, ended bool, err error)

// state is an event: a state as it is sent.
type state struct {
	id    string // a hash of data
	data  []byte
	ended bool
}

func (read readState) event(ctx context.Context, p authz.Principal) (state, error) {
	view, ended, err := read(ctx, p)
	if err != nil {
		return state{}, err
	}
	data, err := json.Marshal(view)
	sum := sha256.Sum256(data)
	return state{hex.EncodeToString(sum[:12]), data, ended}, err
}

// followState streams a state to a caller who has seen the event of that id.
func (a *api) followState(ctx context.Context, store stoa.StoreID, seen string, read readState) (*huma.StreamResponse, error) {
	// The first reading precedes the response's status, which may be an error.
	first, err := read.event(ctx, principal(ctx))
	if err != nil {
		return nil, err
	}
	if first.ended && first.id == seen {
		return &huma.StreamResponse{Body: func(ctx huma.Context) { ctx.SetStatus(http.StatusNoContent) }}, nil
	}
	release, err := a.streams.acquire(store, principal(ctx))
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer release()
		_, w := humago.Unwrap(ctx)
		s := &stream{api: a, request: ctx, store: store, w: w, control: http.NewResponseController(w)}
		s.runStates(ctx.Context(), first, seen, read)
	}}, nil
}

// runStates sends states as run sends events. The caller is authenticated before each reading.
func (s *stream) runStates(ctx context.Context, now state, seen string, read readState) {
	ctx, cancel := context.WithTimeout(ctx, streamLifetime)
	defer cancel()
	if s.open() != nil {
		return
	}
	poll, heartbeat := time.NewTicker(streamPoll), time.NewTicker(streamHeartbeat)
	defer poll.Stop()
	defer heartbeat.Stop()
	for {
		if now.id != seen {
			if s.send(fmt.Sprintf("id: %s\ndata: %s\n\n", now.id, now.data)) != nil {
				return
			}
			seen = now.id
		}
		if now.ended || !s.wait(ctx, poll.C, heartbeat.C) {
			return
		}
		p, err := s.principal(s.request)
		if err == nil {
			now, err = read.event(ctx, p)
		}
		if err != nil {
			s.logEnd(ctx, err)
			return
		}
	}
}
