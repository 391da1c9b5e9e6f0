package httpapi

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/webhooks"
)

// DeliveryPath names a delivery in a path.
type DeliveryPath struct {
	WebhookPath
	DeliveryID string `path:"deliveryId" doc:"The delivery's id, a UUID"`
}

// delivery parses the path. An id that is none is that of no delivery.
func (p DeliveryPath) delivery() stoa.DeliveryID {
	id, _ := stoa.ParseID[stoa.DeliveryID](p.DeliveryID)
	return id
}

// DeliveriesInput filters the deliveries of an endpoint.
type DeliveriesInput struct {
	WebhookPath
	PageInput
	State string `query:"state" enum:"waiting,succeeded,failed" doc:"Deliveries in this state only"`
	Type  string `query:"type" maxLength:"100" doc:"Deliveries of events of this type only"`
}

// DeliveryView is a delivery.
type DeliveryView struct {
	ID         stoa.DeliveryID        `json:"id" format:"uuid" doc:"Id of the delivery"`
	WebhookID  stoa.WebhookID         `json:"webhookId" format:"uuid" doc:"The endpoint"`
	EventID    stoa.EventID           `json:"eventId" format:"uuid" doc:"The event, whose id is the header webhook-id"`
	Type       events.Type            `json:"type" doc:"Type of the event" example:"store.suspended"`
	Origin     webhooks.Origin        `json:"origin" enum:"event,resend,replay,test" doc:"Why it is sent: it happened, or somebody asked to send it again, for a replay, or for a test"`
	State      webhooks.DeliveryState `json:"state" enum:"waiting,succeeded,failed" doc:"waiting: it is sent, or sent again; failed: it is not sent again"`
	Attempts   int                    `json:"attempts" doc:"How often it was sent"`
	NextAt     *time.Time             `json:"nextAt" doc:"When it is sent again, at the earliest; null: it is not sent again"`
	CreatedAt  time.Time              `json:"createdAt"`
	FinishedAt *time.Time             `json:"finishedAt" doc:"When it was accepted or given up; null before"`
}

func newDeliveryView(d webhooks.Delivery) DeliveryView {
	return DeliveryView{
		ID: d.ID, WebhookID: d.EndpointID, EventID: d.EventID, Type: d.Type, Origin: d.Origin, State: d.State, Attempts: d.Attempts, NextAt: d.NextAt,
		CreatedAt: d.CreatedAt, FinishedAt: d.FinishedAt,
	}
}

type deliveryAttemptView struct {
	Number int       `json:"number" doc:"1, 2, 3, …"`
	At     time.Time `json:"at" doc:"When it was sent"`
	TookMS int64     `json:"tookMs" doc:"Milliseconds until the answer"`
	Status *int      `json:"status" doc:"HTTP status of the answer; null: there was none"`
	Fault  *string   `json:"fault" doc:"Why it was not accepted, for people; null: it was"`
	Answer string    `json:"answer" doc:"The beginning of the answer's body"`
}

type deliveryOutput struct {
	Location string `header:"Location"`
	Body     DeliveryView
}

func newDeliveryOutput(store stoa.StoreID, d webhooks.Delivery) *deliveryOutput {
	e := webhooks.Endpoint{ID: d.EndpointID}
	if !store.IsZero() {
		e.StoreID = &store
	}
	return &deliveryOutput{webhookAddress(e) + "/deliveries/" + d.ID.String(), newDeliveryView(d)}
}

type oneDeliveryOutput struct {
	Body struct {
		DeliveryView
		Event *publishedEventView   `json:"event" doc:"As it was sent; null: it is older than 30 days"`
		Tries []deliveryAttemptView `json:"tries" doc:"Each attempt, oldest first"`
	}
}

type deliveryPage struct {
	Data       []DeliveryView `json:"data"`
	NextCursor *string        `json:"nextCursor"`
}

type deliveriesOutput struct{ Body deliveryPage }

func (a *api) listDeliveries(ctx context.Context, store stoa.StoreID, in *DeliveriesInput) (*deliveriesOutput, error) {
	page, err := a.Webhooks.Deliveries(ctx, principal(ctx), store, in.id(), webhooks.DeliveryFilter{State: in.State, Type: in.Type, Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, err
	}
	out := &deliveriesOutput{deliveryPage{Data: make([]DeliveryView, len(page.Deliveries)), NextCursor: page.NextCursor}}
	for i, d := range page.Deliveries {
		out.Body.Data[i] = newDeliveryView(d)
	}
	return out, nil
}

func (a *api) getDelivery(ctx context.Context, store stoa.StoreID, in *DeliveryPath) (*oneDeliveryOutput, error) {
	d, attempts, event, err := a.Webhooks.Delivery(ctx, principal(ctx), store, in.id(), in.delivery())
	if err != nil {
		return nil, err
	}
	out := &oneDeliveryOutput{}
	out.Body.DeliveryView, out.Body.Tries = newDeliveryView(d), []deliveryAttemptView{}
	if event != nil {
		out.Body.Event = new(newPublishedEventView(*event))
	}
	for _, at := range attempts {
		v := deliveryAttemptView{Number: at.Number, At: at.At, TookMS: at.TookMS, Answer: at.Answer}
		if at.Status != 0 {
			v.Status = &at.Status
		}
		if at.Fault != "" {
			v.Fault = &at.Fault
		}
		out.Body.Tries = append(out.Body.Tries, v)
	}
	return out, nil
}

func (a *api) resendDelivery(ctx context.Context, store stoa.StoreID, in *DeliveryPath) (*deliveryOutput, error) {
	d, err := a.Webhooks.Resend(ctx, principal(ctx), store, in.id(), in.delivery())
	if err != nil {
		return nil, err
	}
	return newDeliveryOutput(store, d), nil
}
