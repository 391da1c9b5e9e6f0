package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/webhooks"
)

func (a *api) publishedEventRoutes() {
	schema := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[publishedEventView](), true, "")
	list := func(id, path, tag, of string) huma.Operation {
		return huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Tags: []string{tag}, Summary: "The events of " + of,
			Description: "Of the last 30 days, newest first. With order=oldest every page has a nextCursor: ask again with it for what has happened since. " +
				"An event is listed within moments of what it tells of; a reader who goes on from a cursor misses none.",
			Errors: []int{401, 403, 404, 422}}
	}
	stream := func(id, path, tag, of string) huma.Operation {
		return huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Tags: []string{tag}, Summary: "Follow the events of " + of,
			Description: "Server-sent events: each event as it happens. The stream ends after some minutes, or when the server stops: connect again with the last id " +
				"as Last-Event-ID, as EventSource does by itself, and no event is missed. Comments keep the connection alive.",
			Responses: map[string]*huma.Response{
				"200": {Description: "Events; data of each is the JSON object described here", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: schema}}},
			}, Errors: []int{401, 403, 404, 422, 429}}
	}
	read := routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadEvents), maxBody: noBody, list: "type"}
	follow := routeOptions{timeout: streamLifetime + requestTimeout, rate: rateCaller, scope: scope(authz.ReadEvents), maxBody: noBody, list: "type"}
	route(a, read, list("events.list", "/api/stores/{id}/events", "Webhooks", "the store"), func(ctx context.Context, in *struct {
		StorePath
		EventsInput
	}) (*publishedEventsOutput, error) {
		return atStore(ctx, in.ID, &in.EventsInput, a.listEvents)
	})
	route(a, follow, stream("events.follow", "/api/stores/{id}/events/stream", "Webhooks", "the store"), func(ctx context.Context, in *struct {
		StorePath
		FollowEventsInput
	}) (*huma.StreamResponse, error) {
		return atStore(ctx, in.ID, &in.FollowEventsInput, a.followEvents)
	})
	read.scope, follow.scope = scopeOperator, scopeOperator
	route(a, read, list("operatorEvents.list", "/api/events", "Operator", "all stores and of the platform"), atPlatform(a.listEvents))
	route(a, follow, stream("operatorEvents.follow", "/api/events/stream", "Operator", "all stores and of the platform"), atPlatform(a.followEvents))
	a.describeEvents()
}

// publishedEventView is an event as it is listed and sent.
type publishedEventView struct {
	ID        stoa.EventID      `json:"id" format:"uuid" doc:"Id of the event; the header webhook-id of its deliveries"`
	Type      events.Type       `json:"type" doc:"What has happened: a type of the catalogue, which is the section webhooks of this document" example:"store.suspended"`
	Timestamp time.Time         `json:"timestamp" doc:"When it happened"`
	StoreID   *stoa.StoreID     `json:"storeId" format:"uuid" doc:"The store; null: it concerns no store"`
	UserID    *stoa.UserID      `json:"userId" format:"uuid" doc:"Who did it; null: the platform, or an operator by a command"`
	Data      map[string]string `json:"data" doc:"More of it: the members that the catalogue lists for the type"`
}

func newPublishedEventView(e events.Event) publishedEventView {
	v := publishedEventView{ID: e.ID, Type: e.Type, Timestamp: e.CreatedAt.UTC(), StoreID: e.StoreID, UserID: e.UserID, Data: map[string]string{}}
	_ = json.Unmarshal([]byte(e.Data), &v.Data) // written as JSON by package events
	return v
}

// EventsInput filters the list of events.
type EventsInput struct {
	PageInput
	Types []string `query:"type,explode" maxItems:"100" doc:"Events of these types only"`
	Order string   `query:"order" enum:"newest,oldest" default:"newest" doc:"Which event is the first"`
}

// FollowEventsInput filters a stream of events.
type FollowEventsInput struct {
	Types       []string `query:"type,explode" maxItems:"100" doc:"Events of these types only"`
	LastEventID string   `header:"Last-Event-ID" maxLength:"200" doc:"The id of the last event seen; without it, from now on"`
}

type publishedEventPage struct {
	Data       []publishedEventView `json:"data"`
	NextCursor *string              `json:"nextCursor"`
}

type publishedEventsOutput struct{ Body publishedEventPage }

func (a *api) listEvents(ctx context.Context, store stoa.StoreID, in *EventsInput) (*publishedEventsOutput, error) {
	page, err := a.Webhooks.Events(ctx, principal(ctx), store, webhooks.EventFilter{
		Types: in.Types, OldestFirst: in.Order == "oldest", Limit: in.Limit, Cursor: in.Cursor,
	})
	if err != nil {
		return nil, err
	}
	out := &publishedEventsOutput{publishedEventPage{Data: make([]publishedEventView, len(page.Events)), NextCursor: page.NextCursor}}
	for i, e := range page.Events {
		out.Body.Data[i] = newPublishedEventView(e)
	}
	return out, nil
}

func (a *api) followEvents(ctx context.Context, store stoa.StoreID, in *FollowEventsInput) (*huma.StreamResponse, error) {
	position, err := strconv.ParseInt(in.LastEventID, 10, 64)
	if err != nil || position < 0 {
		if position, err = a.Webhooks.Last(ctx); err != nil {
			return nil, err
		}
	}
	// The first reading precedes the response's status, which may be an error.
	first, err := a.Webhooks.EventsAfter(ctx, principal(ctx), store, in.Types, position)
	if err != nil {
		return nil, err
	}
	release, err := a.streams.acquire(store, principal(ctx))
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer release()
		_, w := humago.Unwrap(ctx)
		s := &stream{api: a, request: ctx, store: store, w: w, control: http.NewResponseController(w)}
		s.runEvents(ctx.Context(), first, position, in.Types)
	}}, nil
}

// runEvents sends events as run sends those of provisioning runs. The caller is authenticated
// before each reading.
func (s *stream) runEvents(ctx context.Context, found []events.Event, position int64, types []string) {
	ctx, cancel := context.WithTimeout(ctx, streamLifetime)
	defer cancel()
	s.woken, s.leave = s.Webhooks.Follow()
	defer s.leave()
	if s.open() != nil {
		return
	}
	poll, heartbeat := time.NewTicker(streamPoll), time.NewTicker(streamHeartbeat)
	defer poll.Stop()
	defer heartbeat.Stop()
	for {
		for _, e := range found {
			data, err := json.Marshal(newPublishedEventView(e))
			if err != nil || s.send(fmt.Sprintf("id: %d\ndata: %s\n\n", e.Position, data)) != nil {
				return
			}
			position = e.Position
		}
		if len(found) == 0 && !s.wait(ctx, poll.C, heartbeat.C) {
			return
		}
		p, err := s.principal(s.request)
		if err == nil {
			found, err = s.Webhooks.EventsAfter(ctx, p, s.store, types, position)
		}
		if err != nil {
			s.logEnd(ctx, err)
			return
		}
	}
}

// describeEvents adds the catalogue of events to the document.
func (a *api) describeEvents() {
	doc := a.huma.OpenAPI()
	doc.Webhooks = map[string]*huma.PathItem{}
	for _, kind := range events.Catalogue() {
		doc.Webhooks[string(kind.Type)] = &huma.PathItem{Post: describeEvent(kind)}
	}
}

func describeEvent(kind events.Kind) *huma.Operation {
	data := &huma.Schema{Type: huma.TypeObject, Description: "More of it", Properties: map[string]*huma.Schema{}}
	example := map[string]any{}
	for _, m := range kind.Members {
		data.Properties[m.Name] = &huma.Schema{Type: huma.TypeString, Description: m.About}
		data.Required = append(data.Required, m.Name)
		example[m.Name] = m.Example
	}
	text := func(about, format string) *huma.Schema {
		return &huma.Schema{Type: huma.TypeString, Format: format, Description: about}
	}
	orNull := func(s *huma.Schema) *huma.Schema { s.Nullable = true; return s }
	store := any("019363a0-0000-7000-8000-000000000002")
	if kind.OfPlatform() {
		store = nil
	}
	schema := &huma.Schema{Type: huma.TypeObject, Required: []string{"id", "type", "timestamp", "storeId", "userId", "data"}, Properties: map[string]*huma.Schema{
		"id": text("Id of the event, as in webhook-id", "uuid"), "type": {Type: huma.TypeString, Enum: []any{string(kind.Type)}, Description: "What has happened"},
		"timestamp": text("When it happened", "date-time"), "storeId": orNull(text("The store", "uuid")), "userId": orNull(text("Who did it; null: the platform", "uuid")),
		"data": data,
	}}
	header := func(name, about string) *huma.Param {
		return &huma.Param{Name: name, In: "header", Required: true, Description: about, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	return &huma.Operation{
		OperationID: "on." + string(kind.Type), Summary: kind.About, Tags: []string{"Webhooks"},
		Description: "Sent to the endpoints that receive this type. Verify the signature before you trust it.",
		Parameters: []*huma.Param{
			header("webhook-id", "Id of the event: the same whenever it is sent again"),
			header("webhook-timestamp", "When it is sent, in seconds since 1970. Refuse what is older than five minutes"),
			header("webhook-signature", "v1, a comma, and the HMAC-SHA256 of id.timestamp.body in base64; several are separated by spaces while the secret is rotated"),
		},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{jsonType: {Schema: schema, Example: map[string]any{
			"id": "019363a0-0000-7000-8000-000000000003", "type": string(kind.Type), "timestamp": "2026-11-28T12:00:00Z", "storeId": store, "userId": nil, "data": example,
		}}}},
		Responses: map[string]*huma.Response{
			"2XX":     {Description: "The event is accepted"},
			"410":     {Description: "The endpoint wants no more events: it is disabled"},
			"default": {Description: "The event is sent again"},
		},
		Security: []map[string][]string{{}},
	}
}
