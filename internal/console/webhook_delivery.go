package console

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/webhooks"
)

func (c *Console) webhookDeliveryRoutes() []Route {
	return bothWebhookOwners(func(base string, read, manage Scope) []Route {
		base += "/{endpoint}/deliveries/{delivery}"
		return []Route{
			{Pattern: "GET " + base, RouteOptions: view(read), Handle: c.delivery},
			{Pattern: "GET " + base + "/live", RouteOptions: stream(read), Handle: c.followDelivery},
			{Pattern: "POST " + base + "/resend", RouteOptions: form(manage), Handle: c.resendDelivery},
		}
	})
}

// deliveryPath returns the address of a delivery's page, from that of its endpoint.
func deliveryPath(endpoint string, id stoa.DeliveryID) string {
	return endpoint + "/deliveries/" + id.String()
}

// deliveryView fills the page of one delivery.
type deliveryView struct {
	webhookOwner
	deliveryNow
	Form     ui.Form
	Endpoint webhookRow
	Path     string // the address of the page
	Payload  string // formatted; "": the event is deleted
}

// deliveryNow is the part of the page that is kept up to date.
type deliveryNow struct {
	Delivery webhooks.Delivery
	Attempts []webhooks.Attempt
	Headers  string // of the last attempt
}

var deliveryStateOptions = []ui.Option{{Value: "", Label: "All"}, {Value: string(webhooks.Waiting), Label: "Waiting"}, {Value: string(webhooks.Succeeded), Label: "Accepted"}, {Value: string(webhooks.Failed), Label: "Failed"}}

// deliveryState returns a delivery's state in the console's vocabulary.
func deliveryState(d webhooks.Delivery) ui.State {
	switch {
	case d.State == webhooks.Succeeded:
		return ui.State{Word: "Accepted", Kind: ui.Success, Icon: "check"}
	case d.State == webhooks.Failed:
		return ui.State{Word: "Failed", Kind: ui.Danger, Icon: "alert"}
	case d.Attempts > 0:
		return ui.State{Word: "Will be retried", Kind: ui.Warning, Icon: "alert"}
	}
	return ui.State{Word: "Waiting", Kind: ui.Info, Icon: "clock"}
}

// deliveryOrigins says in words why an event was sent.
var deliveryOrigins = map[webhooks.Origin]string{
	webhooks.FromEvent: "It happened", webhooks.FromResend: "Sent again", webhooks.FromReplay: "Sent again with others", webhooks.FromTest: "Test",
}

// past reports whether a time has passed.
func past(t time.Time) bool { return !time.Now().Before(t) }

func (c *Console) deliveryNamed(r *Request, a authz.Action) (webhookOwner, stoa.WebhookID, stoa.DeliveryID, error) {
	o, endpoint, err := c.webhookNamed(r, a)
	if err != nil {
		return o, endpoint, stoa.DeliveryID{}, err
	}
	id, err := stoa.ParseID[stoa.DeliveryID](r.PathValue("delivery"))
	if err != nil {
		return o, endpoint, id, stoa.Errorf(stoa.NotFound, "There is no such delivery. Deliveries are kept for 30 days.")
	}
	return o, endpoint, id, nil
}

// newDeliveryNow returns the live part. The signature of an attempt is not kept.
func newDeliveryNow(d webhooks.Delivery, attempts []webhooks.Attempt) deliveryNow {
	v := deliveryNow{Delivery: d, Attempts: attempts}
	if len(attempts) == 0 {
		return v
	}
	headers := webhooks.Headers(d.EventID, attempts[len(attempts)-1].At)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		text.WriteString(strings.ToLower(name) + ": " + headers.Get(name) + "\n")
	}
	v.Headers = text.String() + "webhook-signature: v1,… (not kept)"
	return v
}

func (c *Console) delivery(w http.ResponseWriter, r *Request) error {
	o, endpoint, id, err := c.deliveryNamed(r, authz.ReadWebhooks)
	if err != nil {
		return err
	}
	return c.showDelivery(w, r, o, endpoint, id, ui.Form{})
}

func (c *Console) showDelivery(w http.ResponseWriter, r *Request, o webhookOwner, endpoint stoa.WebhookID, id stoa.DeliveryID, f ui.Form) error {
	e, err := c.Webhooks.Get(r.Context(), r.Principal, o.Store.ID, endpoint)
	if err != nil {
		return err
	}
	d, attempts, event, err := c.Webhooks.Delivery(r.Context(), r.Principal, o.Store.ID, endpoint, id)
	if err != nil {
		return err
	}
	v := deliveryView{webhookOwner: o, deliveryNow: newDeliveryNow(d, attempts), Form: f, Endpoint: newWebhookRow(e), Path: deliveryPath(o.path(endpoint), id)}
	if event != nil {
		raw, err := event.JSON()
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := json.Indent(&b, raw, "", "  "); err != nil {
			return err
		}
		v.Payload = b.String()
	}
	return c.render(w, r, f.Status(), o.frame("Delivery"), deliveryPage(v))
}

func (c *Console) followDelivery(w http.ResponseWriter, r *Request) error {
	o, endpoint, id, err := c.deliveryNamed(r, authz.ReadWebhooks)
	if err != nil {
		return err
	}
	return c.serveLive(w, r, nil, func(ctx context.Context) (templ.Component, bool, error) {
		d, attempts, _, err := c.Webhooks.Delivery(ctx, r.Principal, o.Store.ID, endpoint, id)
		return deliveryPart(newDeliveryNow(d, attempts)), d.State != webhooks.Waiting, err
	})
}

// resendDelivery sends the event again and leads to the new delivery.
func (c *Console) resendDelivery(w http.ResponseWriter, r *Request) error {
	o, endpoint, id, err := c.deliveryNamed(r, authz.ManageWebhooks)
	if err != nil {
		return err
	}
	d, cause := c.Webhooks.Resend(r.Context(), r.Principal, o.Store.ID, endpoint, id)
	if cause == nil {
		return redirect(w, r, deliveryPath(o.path(endpoint), d.ID), "The event is sent again. This page shows what the endpoint answers.")
	}
	f, err := refused(r, cause)
	if err != nil {
		return err
	}
	return c.showDelivery(w, r, o, endpoint, id, f)
}

// statusWords returns the status of an attempt's answer.
func statusWords(a webhooks.Attempt) string {
	if a.Status == 0 {
		return "no answer"
	}
	return strings.TrimSpace(strconv.Itoa(a.Status) + " " + http.StatusText(a.Status))
}
