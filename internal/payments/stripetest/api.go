package stripetest

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// handle answers a call of the API.
func (s *Stripe) handle(r *http.Request) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
	resource := parts[0]
	if resource == "checkout" && len(parts) > 1 {
		resource, parts = "checkout/"+parts[1], parts[1:]
	}
	kind := kinds[resource]
	switch {
	case kind == "" && resource != "events":
		return problem(http.StatusNotFound, "invalid_request_error", "", "Unrecognized request URL")
	case r.Method == http.MethodGet && len(parts) == 1 && resource == "events":
		return s.listEvents(r.Form)
	case r.Method == http.MethodGet && len(parts) == 1:
		return s.list(kind, r.Form)
	case r.Method == http.MethodGet && len(parts) == 2:
		return s.retrieve(kind, parts[1], r.Form)
	case r.Method == http.MethodPost && len(parts) == 1:
		switch kind {
		case "checkout.session":
			return s.createSession(r.Form)
		case "customer":
			return reply(s.add("cus", kind, object{"name": r.Form.Get("name"), "metadata": metadata(r.Form, "metadata")}))
		case "payment_intent":
			return s.createIntent(r.Form)
		}
	case r.Method == http.MethodPost && len(parts) == 3 && kind == "payment_intent" && parts[2] == "cancel":
		return s.cancel(parts[1])
	}
	return problem(http.StatusNotFound, "invalid_request_error", "", "Unrecognized request URL")
}

var kinds = map[string]string{
	"checkout/sessions": "checkout.session", "customers": "customer", "payment_intents": "payment_intent",
	"refunds": "refund", "disputes": "dispute",
}

func missing(id string) *answer {
	return problem(http.StatusNotFound, "invalid_request_error", "resource_missing", "No such object: '"+id+"'")
}

func bad(code, message string) *answer {
	return problem(http.StatusBadRequest, "invalid_request_error", code, message)
}

func (s *Stripe) retrieve(kind, id string, form url.Values) *answer {
	o := s.objects[id]
	if o == nil || o["object"] != kind {
		return missing(id)
	}
	return reply(s.expanded(o, form))
}

// expanded replaces the references in the caller's expand parameter by their objects.
func (s *Stripe) expanded(o object, form url.Values) object {
	for key, values := range form {
		if strings.HasPrefix(key, "expand[") {
			o = s.expand(o, strings.Split(values[0], "."))
		}
	}
	return o
}

func (s *Stripe) expand(o object, path []string) object {
	id, ok := o[path[0]].(string)
	if !ok || s.objects[id] == nil {
		return o
	}
	inner := s.objects[id]
	if len(path) > 1 {
		inner = s.expand(inner, path[1:])
	}
	o = maps.Clone(o)
	o[path[0]] = inner
	return o
}

// list returns the objects that have the requested values, newest first.
func (s *Stripe) list(kind string, form url.Values) *answer {
	var all []object
	for _, id := range slices.Backward(s.ids) {
		o := s.objects[id]
		fits := o["object"] == kind
		for _, member := range []string{"payment_intent", "customer"} {
			fits = fits && (form.Get(member) == "" || o[member] == form.Get(member))
		}
		if fits && since(o["created"], form) {
			all = append(all, o)
		}
	}
	return page(all, form)
}

func since(created any, form url.Values) bool {
	from, err := strconv.ParseInt(form.Get("created[gte]"), 10, 64)
	return err != nil || created.(int64) >= from
}

func page(all []object, form url.Values) *answer {
	if after := form.Get("starting_after"); after != "" {
		i := slices.IndexFunc(all, func(o object) bool { return o["id"] == after })
		if i < 0 {
			return bad("resource_missing", "No such object: '"+after+"'")
		}
		all = all[i+1:]
	}
	limit, err := strconv.Atoi(form.Get("limit"))
	if err != nil {
		limit = 10
	}
	more := len(all) > limit
	return reply(object{"object": "list", "data": append([]object{}, all[:min(limit, len(all))]...), "has_more": more, "url": "/"})
}

func (s *Stripe) listEvents(form url.Values) *answer {
	var types []string
	for key, values := range form {
		if strings.HasPrefix(key, "types[") {
			types = append(types, values...)
		}
	}
	var all []object
	for _, e := range slices.Backward(s.events) {
		if form.Get("delivery_success") == "false" && e.delivered || types != nil && !slices.Contains(types, e.Type) || !since(e.created, form) {
			continue
		}
		var o object
		if err := json.Unmarshal(e.body, &o); err != nil {
			panic(err) // addEvent marshalled it
		}
		all = append(all, o)
	}
	return page(all, form)
}

func (s *Stripe) createSession(form url.Values) *answer {
	o := object{
		"mode": form.Get("mode"), "client_reference_id": form.Get("client_reference_id"), "metadata": metadata(form, "metadata"),
		"customer": nullable(form.Get("customer")), "success_url": form.Get("success_url"), "cancel_url": form.Get("cancel_url"),
		"status": "open", "payment_intent": nil, "setup_intent": nil,
	}
	if form.Get("success_url") == "" {
		return bad("parameter_missing", "Missing required param: success_url.")
	}
	switch form.Get("mode") {
	case "payment":
		amount, err := strconv.ParseInt(form.Get("line_items[0][price_data][unit_amount]"), 10, 64)
		if err != nil || form.Get("line_items[0][price_data][product_data][name]") == "" || form.Get("line_items[0][quantity]") != "1" {
			return bad("parameter_missing", "Missing required param: line_items.")
		}
		if fault := priceFault(amount, form.Get("line_items[0][price_data][currency]")); fault != nil {
			return fault
		}
		// The account has adaptive pricing enabled.
		o["adaptive_pricing"] = object{"enabled": form.Get("adaptive_pricing[enabled]") != "false"}
		o["amount_total"], o["currency"], o["payment_status"] = amount, form.Get("line_items[0][price_data][currency]"), "unpaid"
		o["intent_metadata"] = metadata(form, "payment_intent_data[metadata]")
	case "setup":
		if s.objects[form.Get("customer")] == nil {
			return bad("resource_missing", "No such customer")
		}
		o["payment_status"] = "no_payment_required"
	default:
		return bad("parameter_missing", "Missing required param: mode.")
	}
	s.add("cs_test", "checkout.session", o)
	o["url"] = s.URL + "/pay/" + o["id"].(string)
	return reply(o)
}

// priceFault checks the limits of US dollars and the multiples that some
// currencies require. It returns nil for a valid price.
func priceFault(amount int64, currency string) *answer {
	multiple := int64(1)
	switch currency {
	case "isk", "ugx":
		multiple = 100
	case "bhd", "jod", "kwd", "omr", "tnd":
		multiple = 10
	}
	switch {
	case !slices.Contains(currencies, currency):
		return bad("", "Invalid currency: "+currency)
	case amount%multiple != 0:
		return bad("parameter_invalid_integer", "Invalid integer for "+currency)
	case amount < 50:
		return bad("amount_too_small", "Amount must convert to at least 50 cents.")
	case amount > 99_999_999:
		return bad("amount_too_large", "Amount must be no more than $999,999.99.")
	}
	return nil
}

// currencies are the currencies that the fake accepts.
var currencies = strings.Fields("usd eur gbp chf jpy krw huf twd isk ugx bhd jod kwd omr tnd")

func (s *Stripe) createIntent(form url.Values) *answer {
	amount, err := strconv.ParseInt(form.Get("amount"), 10, 64)
	if err != nil {
		return bad("parameter_missing", "Missing required param: amount.")
	}
	if fault := priceFault(amount, form.Get("currency")); fault != nil {
		return fault
	}
	card := s.objects[form.Get("payment_method")]
	if card == nil || card["customer"] != form.Get("customer") {
		return bad("resource_missing", "No such PaymentMethod")
	}
	if form.Get("confirm") != "true" || form.Get("off_session") != "true" {
		return bad("", "The fake only supports charges off session.")
	}
	o := s.add("pi", "payment_intent", object{
		"amount": amount, "amount_received": int64(0), "currency": form.Get("currency"), "customer": form.Get("customer"),
		"payment_method": card["id"], "metadata": metadata(form, "metadata"),
	})
	switch card["behaviour"].(Card) {
	case Good:
		o["status"], o["amount_received"] = "succeeded", amount
		s.addEvent("payment_intent.succeeded", o)
		return reply(o)
	case Slow:
		o["status"] = "processing"
		return reply(o)
	case Declined:
		return s.decline(o, "card_declined", "insufficient_funds")
	default: // NeedsOwner
		return s.decline(o, "authentication_required", "authentication_required")
	}
}

func (s *Stripe) decline(intent object, code, declineCode string) *answer {
	fault := object{"type": "card_error", "code": code, "decline_code": declineCode, "message": "The card was declined."}
	intent["status"], intent["last_payment_error"] = "requires_payment_method", maps.Clone(fault)
	s.addEvent("payment_intent.payment_failed", intent)
	fault["payment_intent"] = intent
	return failure(http.StatusPaymentRequired, fault)
}

func (s *Stripe) cancel(id string) *answer {
	o := s.objects[id]
	switch {
	case o == nil:
		return missing(id)
	case o["status"] == "succeeded" || o["status"] == "canceled":
		return bad("payment_intent_unexpected_state", "This PaymentIntent cannot be canceled.")
	}
	o["status"] = "canceled"
	s.addEvent("payment_intent.canceled", o)
	return reply(o)
}

func metadata(form url.Values, name string) object {
	out := object{}
	for key, values := range form {
		if inner, ok := strings.CutPrefix(key, name+"["); ok {
			out[strings.TrimSuffix(inner, "]")] = values[0]
		}
	}
	return out
}

func nullable(s string) any {
	if s == "" {
		return nil
	}
	return s
}
