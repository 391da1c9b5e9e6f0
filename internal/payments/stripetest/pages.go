package stripetest

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

//go:embed pages.html
var pagesText string

var pageTemplates = template.Must(template.New("").Parse(pagesText))

// pages serves the API below /v1/, a page with all objects, the checkout pages,
// and one POST for each action of the buyer, the card and the bank. Clients that
// do not accept HTML get JSON.
func (s *Stripe) pages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { show(w, r, "overview", s.overview()) })
	mux.HandleFunc("GET /pay/{id}", s.checkoutPage)
	mux.HandleFunc("POST /pay/{id}/{action}", s.checkoutAction)
	mux.HandleFunc("POST /payments/{id}/{action}", s.paymentAction)
	mux.HandleFunc("POST /disputes/{id}/{action}", s.disputeAction)
	all := http.NewServeMux()
	all.HandleFunc("/v1/", s.serve)
	all.Handle("/", http.NewCrossOriginProtection().Handler(mux))
	return all
}

// overviewView is what the overview page shows, newest first.
type overviewView struct {
	Hook      string         `json:"hook"`
	Checkouts []checkoutView `json:"checkouts"`
	Payments  []paymentView  `json:"payments"`
	Events    []eventView    `json:"events"`
}

type checkoutView struct {
	ID       string `json:"id"`
	Mode     string `json:"mode"`
	Status   string `json:"status"`
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
	Declined bool   `json:"declined"`
	Success  string `json:"successUrl"`
	Cancel   string `json:"cancelUrl"`
}

type paymentView struct {
	ID       string        `json:"id"`
	Status   string        `json:"status"`
	Received int64         `json:"received"`
	Refunded int64         `json:"refunded"`
	Currency string        `json:"currency"`
	Disputes []disputeView `json:"disputes"`
}

// Left returns what can still be refunded.
func (p paymentView) Left() int64 { return p.Received - p.Refunded }

type disputeView struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

type eventView struct {
	ID        string `json:"id"`
	Type      string `json:"type"`
	Delivered bool   `json:"delivered"`
}

func (s *Stripe) overview() overviewView {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := overviewView{Hook: s.hook, Checkouts: []checkoutView{}, Payments: []paymentView{}, Events: []eventView{}}
	for _, id := range slices.Backward(s.ids) {
		switch s.objects[id]["object"] {
		case "checkout.session":
			v.Checkouts = append(v.Checkouts, s.checkout(id))
		case "payment_intent":
			v.Payments = append(v.Payments, s.payment(id))
		}
	}
	for _, e := range slices.Backward(s.events) {
		v.Events = append(v.Events, eventView{ID: e.ID, Type: e.Type, Delivered: e.delivered})
	}
	return v
}

// checkout returns the view of a checkout. The caller holds mu.
func (s *Stripe) checkout(id string) checkoutView {
	o := s.objects[id]
	v := checkoutView{ID: id}
	v.Mode, _ = o["mode"].(string)
	v.Status, _ = o["status"].(string)
	v.Amount, _ = o["amount_total"].(int64)
	v.Currency, _ = o["currency"].(string)
	v.Success, _ = o["success_url"].(string)
	v.Cancel, _ = o["cancel_url"].(string)
	_, v.Declined = o["payment_intent"].(string)
	return v
}

// payment returns the view of a payment intent. The caller holds mu.
func (s *Stripe) payment(id string) paymentView {
	o := s.objects[id]
	v := paymentView{ID: id, Disputes: []disputeView{}}
	v.Status, _ = o["status"].(string)
	v.Received, _ = o["amount_received"].(int64)
	v.Currency, _ = o["currency"].(string)
	for _, other := range s.ids {
		o := s.objects[other]
		switch {
		case o["payment_intent"] != id:
		case o["object"] == "refund" && o["status"] != "failed":
			amount, _ := o["amount"].(int64)
			v.Refunded += amount
		case o["object"] == "dispute":
			status, _ := o["status"].(string)
			v.Disputes = append(v.Disputes, disputeView{ID: other, Status: status})
		}
	}
	return v
}

// find returns the status of an object. ok is false when there is no object of
// that kind and id.
func (s *Stripe) find(kind, id string) (status string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[id]
	if o == nil || o["object"] != kind {
		return "", false
	}
	status, _ = o["status"].(string)
	return status, true
}

func (s *Stripe) checkoutPage(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if _, ok := s.find("checkout.session", id); !ok {
		http.Error(w, "There is no checkout "+id+".", http.StatusNotFound)
		return
	}
	s.mu.Lock()
	v := s.checkout(id)
	s.mu.Unlock()
	show(w, r, "checkout", v)
}

var currencyCode = regexp.MustCompile(`^[a-z]{3}$`)

// checkoutAction carries out an action of the buyer at the checkout.
func (s *Stripe) checkoutAction(w http.ResponseWriter, r *http.Request) {
	s.acting.Lock()
	defer s.acting.Unlock()
	id := r.PathValue("id")
	status, ok := s.find("checkout.session", id)
	if !ok || status != "open" {
		refuseAction(w, ok, "checkout", id, status)
		return
	}
	s.mu.Lock()
	v := s.checkout(id)
	s.mu.Unlock()
	done := map[string]string{"checkout": id}
	switch action := v.Mode + " " + r.PathValue("action"); action {
	case "payment pay":
		amount, currency := v.Amount, v.Currency
		if text := r.FormValue("amount"); text != "" {
			amount, _ = strconv.ParseInt(text, 10, 64)
		}
		if text := r.FormValue("currency"); text != "" {
			currency = strings.ToLower(text)
		}
		if amount < 1 || !currencyCode.MatchString(currency) {
			http.Error(w, "amount is a whole number of minor units, and currency a code of three letters.", http.StatusUnprocessableEntity)
			return
		}
		done["payment"] = s.PayOther(id, amount, currency)
	case "payment decline":
		s.Decline(id)
		v.Success = "/pay/" + id
	case "setup save", "setup decline-later":
		card := Good
		if action == "setup decline-later" {
			card = Declined
		}
		s.SaveCard(id, card)
	case "payment expire", "setup expire":
		s.Expire(id)
		v.Success = v.Cancel
	default:
		http.NotFound(w, r)
		return
	}
	acted(w, r, done, v.Success)
}

// paymentAction carries out a refund by the account's owner, or a dispute by the
// buyer's bank.
func (s *Stripe) paymentAction(w http.ResponseWriter, r *http.Request) {
	s.acting.Lock()
	defer s.acting.Unlock()
	id := r.PathValue("id")
	status, ok := s.find("payment_intent", id)
	if !ok || status != "succeeded" {
		refuseAction(w, ok, "payment", id, status)
		return
	}
	s.mu.Lock()
	v := s.payment(id)
	s.mu.Unlock()
	amount := v.Left()
	if text := r.FormValue("amount"); text != "" {
		amount, _ = strconv.ParseInt(text, 10, 64)
	}
	if amount < 1 || amount > v.Left() {
		http.Error(w, fmt.Sprintf("amount is a whole number of minor units, from 1 to the %d that are left.", v.Left()), http.StatusUnprocessableEntity)
		return
	}
	switch r.PathValue("action") {
	case "refund":
		acted(w, r, map[string]string{"refund": s.Refund(id, amount, "succeeded")}, "/")
	case "dispute":
		dispute := s.Dispute(id, amount)
		s.Withdraw(dispute)
		acted(w, r, map[string]string{"dispute": dispute}, "/")
	default:
		http.NotFound(w, r)
	}
}

// disputeAction carries out the decision of the bank.
func (s *Stripe) disputeAction(w http.ResponseWriter, r *http.Request) {
	s.acting.Lock()
	defer s.acting.Unlock()
	id := r.PathValue("id")
	status, ok := s.find("dispute", id)
	if !ok || status != "needs_response" {
		refuseAction(w, ok, "dispute", id, status)
		return
	}
	switch r.PathValue("action") {
	case "win":
		s.Close(id, "won")
		s.Reinstate(id)
	case "lose":
		s.Close(id, "lost")
	default:
		http.NotFound(w, r)
		return
	}
	acted(w, r, map[string]string{"dispute": id}, "/")
}

func refuseAction(w http.ResponseWriter, known bool, kind, id, status string) {
	if !known {
		http.Error(w, "There is no "+kind+" "+id+".", http.StatusNotFound)
		return
	}
	http.Error(w, "The "+kind+" "+id+" is "+status+".", http.StatusConflict)
}

func wantsHTML(r *http.Request) bool { return strings.Contains(r.Header.Get("Accept"), "text/html") }

// acted answers an action: with a redirect to next in a browser, otherwise with
// JSON.
func acted(w http.ResponseWriter, r *http.Request, done map[string]string, next string) {
	if wantsHTML(r) {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(done) // the client may have disconnected
}

func show(w http.ResponseWriter, r *http.Request, page string, view any) {
	if !wantsHTML(r) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(view) // the client may have disconnected
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = pageTemplates.ExecuteTemplate(w, page, view) // the client may have disconnected
}
