package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/webhooks"
)

const (
	webhooksPath         = "/api/stores/{id}/webhooks"
	operatorWebhooksPath = "/api/operator/webhooks"
)

// webhookOperations describes the operations on endpoints, which stores and the platform have.
type webhookOperations struct {
	path, prefix string
	tags         []string
	of           string // whose events the endpoints receive
	read, manage scope
}

func (a *api) webhookRoutes() {
	ofStore := webhookOperations{webhooksPath, "", []string{"Webhooks"}, "the store", scope(authz.ReadWebhooks), scope(authz.ManageWebhooks)}
	a.storeWebhookRoutes(ofStore)
	a.storeDeliveryRoutes(ofStore)
	a.operatorWebhookRoutes(webhookOperations{operatorWebhooksPath, "operator", []string{"Operator"}, "all stores", scopeOperator, scopeOperator})
}

func (a *api) storeWebhookRoutes(w webhookOperations) {
	route(a, w.options(w.read, noBody), w.list(), func(ctx context.Context, in *StorePath) (*webhooksOutput, error) {
		return atStore(ctx, in.ID, in, a.listWebhooks)
	})
	route(a, w.keyed(maxJSON), w.create(), func(ctx context.Context, in *struct {
		StorePath
		WebhookInput
	}) (*newEndpointOutput, error) {
		return atStore(ctx, in.ID, &in.WebhookInput, a.createWebhook)
	})
	route(a, w.options(w.read, noBody), w.get(), func(ctx context.Context, in *struct {
		StorePath
		WebhookPath
	}) (*endpointOutput, error) {
		return atStore(ctx, in.ID, &in.WebhookPath, a.getWebhook)
	})
	route(a, w.options(w.manage, maxJSON), w.update(), func(ctx context.Context, in *struct {
		StorePath
		WebhookChangeInput
	}) (*endpointOutput, error) {
		return atStore(ctx, in.ID, &in.WebhookChangeInput, a.updateWebhook)
	})
	route(a, w.options(w.manage, noBody), w.remove(), func(ctx context.Context, in *struct {
		StorePath
		WebhookDeletion
	}) (*struct{}, error) {
		return atStore(ctx, in.ID, &in.WebhookDeletion, a.deleteWebhook)
	})
	route(a, w.keyed(noBody), w.rotate(), func(ctx context.Context, in *struct {
		StorePath
		WebhookPath
	}) (*newEndpointOutput, error) {
		return atStore(ctx, in.ID, &in.WebhookPath, a.rotateWebhookSecret)
	})
	route(a, w.keyed(noBody), w.test(), func(ctx context.Context, in *struct {
		StorePath
		WebhookPath
	}) (*deliveryOutput, error) {
		return atStore(ctx, in.ID, &in.WebhookPath, a.testWebhook)
	})
	route(a, w.keyed(maxJSON), w.replay(), func(ctx context.Context, in *struct {
		StorePath
		ReplayInput
	}) (*replayOutput, error) {
		return atStore(ctx, in.ID, &in.ReplayInput, a.replayWebhook)
	})
}

func (a *api) storeDeliveryRoutes(w webhookOperations) {
	route(a, w.options(w.read, noBody), w.deliveries(), func(ctx context.Context, in *struct {
		StorePath
		DeliveriesInput
	}) (*deliveriesOutput, error) {
		return atStore(ctx, in.ID, &in.DeliveriesInput, a.listDeliveries)
	})
	route(a, w.options(w.read, noBody), w.delivery(), func(ctx context.Context, in *struct {
		StorePath
		DeliveryPath
	}) (*oneDeliveryOutput, error) {
		return atStore(ctx, in.ID, &in.DeliveryPath, a.getDelivery)
	})
	route(a, w.keyed(noBody), w.resend(), func(ctx context.Context, in *struct {
		StorePath
		DeliveryPath
	}) (*deliveryOutput, error) {
		return atStore(ctx, in.ID, &in.DeliveryPath, a.resendDelivery)
	})
}

func (a *api) operatorWebhookRoutes(w webhookOperations) {
	route(a, w.options(w.read, noBody), w.list(), atPlatform(a.listWebhooksOfPlatform))
	route(a, w.keyed(maxJSON), w.create(), atPlatform(a.createWebhook))
	route(a, w.options(w.read, noBody), w.get(), atPlatform(a.getWebhook))
	route(a, w.options(w.manage, maxJSON), w.update(), atPlatform(a.updateWebhook))
	route(a, w.options(w.manage, noBody), w.remove(), atPlatform(a.deleteWebhook))
	route(a, w.keyed(noBody), w.rotate(), atPlatform(a.rotateWebhookSecret))
	route(a, w.keyed(noBody), w.test(), atPlatform(a.testWebhook))
	route(a, w.keyed(maxJSON), w.replay(), atPlatform(a.replayWebhook))
	route(a, w.options(w.read, noBody), w.deliveries(), atPlatform(a.listDeliveries))
	route(a, w.options(w.read, noBody), w.delivery(), atPlatform(a.getDelivery))
	route(a, w.keyed(noBody), w.resend(), atPlatform(a.resendDelivery))
}

// atStore calls a handler with the store that a path names.
func atStore[I, O any](ctx context.Context, path string, in *I, handle func(context.Context, stoa.StoreID, *I) (*O, error)) (*O, error) {
	id, err := storeID(path)
	if err != nil {
		return nil, err
	}
	return handle(ctx, id, in)
}

// atPlatform returns a handler for the platform itself, which is the zero store.
func atPlatform[I, O any](handle func(context.Context, stoa.StoreID, *I) (*O, error)) func(context.Context, *I) (*O, error) {
	return func(ctx context.Context, in *I) (*O, error) { return handle(ctx, stoa.StoreID{}, in) }
}

func (w webhookOperations) options(s scope, maxBody int64) routeOptions {
	return routeOptions{timeout: requestTimeout, rate: rateCaller, scope: s, maxBody: maxBody}
}

// keyed are the options of a call that takes an idempotency key.
func (w webhookOperations) keyed(maxBody int64) routeOptions {
	o := w.options(w.manage, maxBody)
	o.key = keyKept
	return o
}

func (w webhookOperations) operation(resource, action, method, path, summary, description string, errors ...int) huma.Operation {
	id := resource + "." + action
	if w.prefix != "" {
		id = w.prefix + upperFirst(resource) + "." + action
	}
	return huma.Operation{OperationID: id, Method: method, Path: w.path + path, Tags: w.tags, Summary: summary, Description: description,
		Errors: append([]int{401, 403}, errors...)}
}

func upperFirst(s string) string { return string(s[0]-'a'+'A') + s[1:] }

func (w webhookOperations) list() huma.Operation {
	return w.operation("webhooks", "list", http.MethodGet, "", "The webhook endpoints of "+w.of, "Newest first. Their number is limited (quota_exceeded): the list has no pages.", 404)
}

func (w webhookOperations) create() huma.Operation {
	op := w.operation("webhooks", "create", http.MethodPost, "", "Add a webhook endpoint for the events of "+w.of,
		"The endpoint receives what happens from now on: a POST for each event, signed as Standard Webhooks describe. The answer shows the secret this once. "+
			"Answer 2xx within 15 seconds; otherwise the event is sent again, ten times in three days. An endpoint that accepts nothing for three days, or answers 410, is disabled.",
		400, 404, 409, 413, 422)
	op.DefaultStatus = http.StatusCreated
	return op
}

func (w webhookOperations) get() huma.Operation {
	return w.operation("webhooks", "get", http.MethodGet, "/{webhookId}", "One webhook endpoint", "With what waits for it, and since when it fails.", 404)
}

func (w webhookOperations) update() huma.Operation {
	return w.operation("webhooks", "update", http.MethodPatch, "/{webhookId}", "Change a webhook endpoint",
		"Members that are left out stay as they are. With `enabled` false it is paused; with true it goes on where it was.", 400, 404, 412, 413, 422)
}

func (w webhookOperations) remove() huma.Operation {
	op := w.operation("webhooks", "delete", http.MethodDelete, "/{webhookId}", "Delete a webhook endpoint", "Nothing is sent to it any more.", 404, 412, 422)
	op.DefaultStatus = http.StatusNoContent
	return op
}

func (w webhookOperations) rotate() huma.Operation {
	return w.operation("webhooks", "rotateSecret", http.MethodPost, "/{webhookId}/rotate-secret", "Give a webhook endpoint a new secret",
		"The answer shows it this once. For 24 hours events are signed with the old one too, so that both are accepted meanwhile.", 404, 409)
}

func (w webhookOperations) test() huma.Operation {
	op := w.operation("webhooks", "test", http.MethodPost, "/{webhookId}/test", "Send a test event to a webhook endpoint",
		"202: it is sent now; the delivery that is answered tells how it went. The type of the event is webhook.test, which no other endpoint receives.", 404, 409)
	op.DefaultStatus = http.StatusAccepted
	return op
}

func (w webhookOperations) replay() huma.Operation {
	op := w.operation("webhooks", "replay", http.MethodPost, "/{webhookId}/replay", "Send the events of a range of time again",
		"202: they are sent, oldest first, beside what happens from now on. Each has the webhook-id that it had.", 400, 404, 409, 413, 422)
	op.DefaultStatus = http.StatusAccepted
	return op
}

func (w webhookOperations) deliveries() huma.Operation {
	return w.operation("webhookDeliveries", "list", http.MethodGet, "/{webhookId}/deliveries", "What was sent to a webhook endpoint", "Newest first, of the last 30 days.", 404, 422)
}

func (w webhookOperations) delivery() huma.Operation {
	return w.operation("webhookDeliveries", "get", http.MethodGet, "/{webhookId}/deliveries/{deliveryId}", "One delivery",
		"With the event as it was sent, and each attempt with the beginning of the answer.", 404)
}

func (w webhookOperations) resend() huma.Operation {
	op := w.operation("webhookDeliveries", "resend", http.MethodPost, "/{webhookId}/deliveries/{deliveryId}/resend", "Send the event of a delivery again",
		"202: it is sent now, as a new delivery with the webhook-id that it had.", 404, 409)
	op.DefaultStatus = http.StatusAccepted
	return op
}

// WebhookPath names an endpoint in a path.
type WebhookPath struct {
	WebhookID string `path:"webhookId" doc:"The endpoint's id, a UUID"`
}

// id parses the path. An id that is none is that of no endpoint.
func (p WebhookPath) id() stoa.WebhookID {
	id, _ := stoa.ParseID[stoa.WebhookID](p.WebhookID)
	return id
}

// WebhookInput is the request for a new endpoint.
type WebhookInput struct {
	Body createWebhookBody
}

// createWebhookBody describes a new endpoint.
type createWebhookBody struct {
	URL         string   `json:"url" maxLength:"2000" example:"https://example.com/webhooks" doc:"Where the events are sent. Over public networks https only; an address in a private network has to be allowed by the operator"`
	Description string   `json:"description,omitempty" maxLength:"800" example:"Orders to the warehouse" doc:"For people, at most 200 characters"`
	Types       []string `json:"types,omitempty" maxItems:"100" example:"[\"store.suspended\"]" doc:"The types of events to receive; empty: all, also those of later versions"`
}

// WebhookChangeInput is a change of an endpoint.
type WebhookChangeInput struct {
	WebhookPath
	IfMatch string `header:"If-Match" maxLength:"1000" doc:"The ETag of the endpoint as it was read"`
	Body    updateWebhookBody
}

// updateWebhookBody has what to change of an endpoint.
type updateWebhookBody struct {
	URL         *string   `json:"url,omitempty" maxLength:"2000" doc:"Where the events are sent"`
	Description *string   `json:"description,omitempty" maxLength:"800" doc:"For people, at most 200 characters"`
	Types       *[]string `json:"types,omitempty" maxItems:"100" doc:"The types of events to receive; empty: all"`
	Enabled     *bool     `json:"enabled,omitempty" doc:"false pauses the endpoint; true enables one that is paused or disabled"`
	SkipMissed  bool      `json:"skipMissed,omitempty" doc:"With enabled true: go on with what happens from now on, instead of what was missed of the last 30 days"`
}

// WebhookDeletion is the request to delete an endpoint.
type WebhookDeletion struct {
	WebhookPath
	IfMatch string `header:"If-Match" maxLength:"1000" doc:"The ETag of the endpoint as it was read"`
}

// ReplayInput is the request for a replay.
type ReplayInput struct {
	WebhookPath
	Body replayWebhookBody
}

// replayWebhookBody is a range of time.
type replayWebhookBody struct {
	From time.Time  `json:"from" doc:"Not before this moment, which is in the last 30 days"`
	To   *time.Time `json:"to,omitempty" doc:"Before this moment; unless given, now"`
}

// WebhookView is an endpoint.
type WebhookView struct {
	ID             stoa.WebhookID `json:"id" format:"uuid" doc:"Id of the endpoint"`
	StoreID        *stoa.StoreID  `json:"storeId" format:"uuid" doc:"The store whose events it receives; null: those of all stores"`
	URL            string         `json:"url" doc:"Where the events are sent"`
	Description    string         `json:"description" doc:"For people"`
	Types          []string       `json:"types" doc:"The types of events that it receives; empty: all"`
	State          webhooks.State `json:"state" enum:"enabled,paused,disabled" doc:"paused: by its owner; disabled: by the platform"`
	DisabledReason *string        `json:"disabledReason" enum:"failing,gone" doc:"failing: it accepted nothing for three days; gone: it answered 410; null: the platform has not disabled it"`
	OldSecretUntil *time.Time     `json:"oldSecretUntil" doc:"Until then events are signed with the secret before too; null: they are not"`
	Waiting        int64          `json:"waiting" doc:"New events that wait for it, at most: some of them may not be for it"`
	Replaying      bool           `json:"replaying" doc:"A replay is not finished"`
	FailingSince   *time.Time     `json:"failingSince" doc:"Since when it has accepted nothing; null: it accepts events"`
	NextAttemptAt  *time.Time     `json:"nextAttemptAt" doc:"When something is sent to it again; null: nothing waits"`
	CreatedAt      time.Time      `json:"createdAt"`
	UpdatedAt      time.Time      `json:"updatedAt"`
}

func newWebhookView(e webhooks.Endpoint, now time.Time) WebhookView {
	v := WebhookView{
		ID: e.ID, StoreID: e.StoreID, URL: e.URL, Description: e.Description, Types: append([]string{}, e.Types()...), State: e.State,
		Waiting: e.Waiting, Replaying: e.Replaying, FailingSince: e.FailingSince, NextAttemptAt: e.NextAt, CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt,
	}
	if e.DisabledReason != "" {
		v.DisabledReason = &e.DisabledReason
	}
	if e.OldUntil != nil && now.Before(*e.OldUntil) {
		v.OldSecretUntil = e.OldUntil
	}
	return v
}

type webhooksOutput struct {
	Body struct {
		Data       []WebhookView `json:"data"`
		NextCursor *string       `json:"nextCursor"`
	}
}

type endpointOutput struct {
	ETag string `header:"ETag" doc:"The version of the endpoint, for If-Match"`
	Body WebhookView
}

type newEndpointOutput struct {
	Location string `header:"Location"`
	ETag     string `header:"ETag" doc:"The version of the endpoint, for If-Match"`
	Body     struct {
		WebhookView
		Secret string `json:"secret" doc:"Verifies the signatures. Shown this once"`
	}
}

func (a *api) endpointOutput(e webhooks.Endpoint) *endpointOutput {
	return &endpointOutput{`"` + e.ETag() + `"`, newWebhookView(e, a.Master.Now())}
}

func (a *api) newEndpointOutput(e webhooks.Endpoint, secret string) *newEndpointOutput {
	out := &newEndpointOutput{ETag: `"` + e.ETag() + `"`, Location: webhookAddress(e)}
	out.Body.WebhookView, out.Body.Secret = newWebhookView(e, a.Master.Now()), secret
	return out
}

func webhookAddress(e webhooks.Endpoint) string {
	if e.StoreID == nil {
		return operatorWebhooksPath + "/" + e.ID.String()
	}
	return storeAddress(*e.StoreID) + "/webhooks/" + e.ID.String()
}

func (a *api) listWebhooksOfPlatform(ctx context.Context, _ stoa.StoreID, _ *struct{}) (*webhooksOutput, error) {
	return a.listWebhooks(ctx, stoa.StoreID{}, nil)
}

func (a *api) listWebhooks(ctx context.Context, store stoa.StoreID, _ *StorePath) (*webhooksOutput, error) {
	list, err := a.Webhooks.List(ctx, principal(ctx), store)
	if err != nil {
		return nil, err
	}
	out := &webhooksOutput{}
	out.Body.Data = make([]WebhookView, len(list))
	for i, e := range list {
		out.Body.Data[i] = newWebhookView(e, a.Master.Now())
	}
	return out, nil
}

func (a *api) createWebhook(ctx context.Context, store stoa.StoreID, in *WebhookInput) (*newEndpointOutput, error) {
	e, secret, err := a.Webhooks.Create(ctx, principal(ctx), store, webhooks.Change{URL: &in.Body.URL, Description: &in.Body.Description, Types: &in.Body.Types})
	if err != nil {
		return nil, err
	}
	return a.newEndpointOutput(e, secret.Reveal()), nil
}

func (a *api) getWebhook(ctx context.Context, store stoa.StoreID, in *WebhookPath) (*endpointOutput, error) {
	e, err := a.Webhooks.Get(ctx, principal(ctx), store, in.id())
	if err != nil {
		return nil, err
	}
	return a.endpointOutput(e), nil
}

func (a *api) updateWebhook(ctx context.Context, store stoa.StoreID, in *WebhookChangeInput) (*endpointOutput, error) {
	match, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	e, err := a.Webhooks.Update(ctx, principal(ctx), store, in.id(), webhooks.Change{
		URL: in.Body.URL, Description: in.Body.Description, Types: in.Body.Types, Enabled: in.Body.Enabled, SkipMissed: in.Body.SkipMissed, Match: match,
	})
	if err != nil {
		return nil, err
	}
	return a.endpointOutput(e), nil
}

func (a *api) deleteWebhook(ctx context.Context, store stoa.StoreID, in *WebhookDeletion) (*struct{}, error) {
	match, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	return nil, a.Webhooks.Delete(ctx, principal(ctx), store, in.id(), match)
}

func (a *api) rotateWebhookSecret(ctx context.Context, store stoa.StoreID, in *WebhookPath) (*newEndpointOutput, error) {
	e, secret, err := a.Webhooks.RotateSecret(ctx, principal(ctx), store, in.id(), nil)
	if err != nil {
		return nil, err
	}
	return a.newEndpointOutput(e, secret.Reveal()), nil
}

func (a *api) testWebhook(ctx context.Context, store stoa.StoreID, in *WebhookPath) (*deliveryOutput, error) {
	d, err := a.Webhooks.Test(ctx, principal(ctx), store, in.id())
	if err != nil {
		return nil, err
	}
	return newDeliveryOutput(store, d), nil
}

type replayOutput struct {
	Body struct {
		Events int64 `json:"events" doc:"The events of the range, at most: some of them may not be for the endpoint"`
	}
}

func (a *api) replayWebhook(ctx context.Context, store stoa.StoreID, in *ReplayInput) (*replayOutput, error) {
	count, err := a.Webhooks.Replay(ctx, principal(ctx), store, in.id(), webhooks.Range{From: in.Body.From, To: in.Body.To})
	if err != nil {
		return nil, err
	}
	out := &replayOutput{}
	out.Body.Events = count
	return out, nil
}
