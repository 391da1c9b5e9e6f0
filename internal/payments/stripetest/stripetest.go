// Package stripetest is a fake Stripe: an HTTP server with the part of its API that
// payments uses. It keeps its objects in memory, signs events as Stripe does, stores
// answers under idempotency keys as Stripe does, including its own failures, and injects
// the failures of Stripe and of the network. Methods of Stripe take the actions of the
// buyer, the bank and the card.
package stripetest

import (
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v86"
)

// The key and the webhook secret of the fake.
const (
	Key    = "sk_test_standin"
	Secret = "whsec_standin"
)

// Stripe is one account at the fake. It is closed with its test.
type Stripe struct {
	URL string

	t      reporter
	hook   string
	client *http.Client // delivers events
	acting sync.Mutex   // held by an action of the pages, from its check to its end

	mu      sync.Mutex
	ids     []string // of objects, oldest first
	objects map[string]object
	events  []*Event
	kept    map[string]*answer // by idempotency key
	faults  []*fault
	refused map[string]*answer // by the beginning of a call
	onLate  func()
	asked   []string
}

// reporter receives unexpected failures. It is the test, or a logger.
type reporter interface {
	Helper()
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// object is a resource as the API shows it, with references as ids.
type object = map[string]any

// New starts a fake Stripe. Deliver sends events to hook, the address of a
// webhook endpoint.
func New(t testing.TB, hook string) *Stripe {
	t.Helper()
	s := newStripe(t, hook)
	server := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() {
		server.CloseClientConnections() // also connections that a fault keeps open
		server.Close()
	})
	s.URL = server.URL
	return s
}

func newStripe(t reporter, hook string) *Stripe {
	return &Stripe{t: t, hook: hook, client: http.DefaultClient, objects: map[string]object{}, kept: map[string]*answer{}}
}

// Asked lists the calls so far, such as "POST /v1/checkout/sessions".
func (s *Stripe) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

// Object returns a copy of an object as the API shows it.
func (s *Stripe) Object(id string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.objects[id])
}

// Forget deletes every idempotency key, as Stripe does after 24 hours.
func (s *Stripe) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = map[string]*answer{}
}

// Fault is a kind of failure.
type Fault int

// The faults. Stripe stores its own failures under the idempotency key.
const (
	Broken      Fault = iota // status 500; the call has no effect
	BrokenAfter              // status 500; the call has taken effect
	Cut                      // the connection is closed; the call has no effect
	CutAfter                 // the connection is closed; the call has taken effect
	LostAfter                // the call has taken effect, Stripe stores a 500 for it, and the connection is closed
	Hang                     // no answer until the client disconnects
	Busy                     // status 429
)

type fault struct {
	call  string
	fault Fault
	late  chan struct{} // not nil: there is no fault, but the answer waits for it
}

// Delay delays the answer to the next call that begins with call. The answer has
// the state at the time of the call. asked is closed when the call arrives, and
// release sends the answer.
func (s *Stripe) Delay(call string) (asked <-chan struct{}, release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &fault{call: call, late: make(chan struct{})}
	s.faults = append(s.faults, f)
	reached := make(chan struct{})
	s.onLate = func() { close(reached) }
	return reached, func() { close(f.late) }
}

// Break injects a fault into the next call that begins with call, such as "POST
// /v1/checkout". Each further Break injects one into a further call.
func (s *Stripe) Break(call string, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &fault{call: call, fault: f})
}

// Refuse answers every later call that begins with call, such as "POST
// /v1/checkout", with an error, until Admit. An empty call matches all.
func (s *Stripe) Refuse(call string, status int, typ, code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == nil {
		s.refused = map[string]*answer{}
	}
	s.refused[call] = problem(status, typ, code, "This call is refused.")
}

// Admit ends the effect of Refuse.
func (s *Stripe) Admit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = nil
}

// refusal returns the answer to a refused call, nil for any other call. The
// caller holds mu.
func (s *Stripe) refusal(call string) *answer {
	for begin, a := range s.refused {
		if strings.HasPrefix(call, begin) {
			return a
		}
	}
	return nil
}

// takeFault removes and returns the fault for a call, nil for none. The caller
// holds mu.
func (s *Stripe) takeFault(call string) *fault {
	for i, f := range s.faults {
		if strings.HasPrefix(call, f.call) {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
			return f
		}
	}
	return nil
}

// answer is an HTTP answer and the request that it answers. Its status is 0 while the
// request is in progress.
type answer struct {
	request string
	status  int
	body    []byte
}

func (s *Stripe) serve(w http.ResponseWriter, r *http.Request) {
	call := r.Method + " " + r.URL.Path
	_ = r.ParseForm() // a parameter that cannot be parsed counts as missing
	s.mu.Lock()
	s.asked = append(s.asked, call)
	refusal := s.refusal(call)
	f := s.takeFault(call)
	s.mu.Unlock()
	if refusal != nil {
		write(w, refusal, false)
		return
	}
	meets := func(kind Fault) bool { return f != nil && f.late == nil && f.fault == kind }
	switch {
	case meets(Hang):
		<-r.Context().Done()
		return
	case meets(Cut):
		panic(http.ErrAbortHandler)
	case meets(Busy):
		write(w, problem(http.StatusTooManyRequests, "rate_limit_error", "rate_limit", "Too many requests"), false)
		return
	}
	a, replayed := s.once(r, call, func() *answer {
		if meets(Broken) {
			return problem(http.StatusInternalServerError, "api_error", "", "Something went wrong")
		}
		out := s.handle(r)
		if meets(BrokenAfter) || meets(LostAfter) {
			return problem(http.StatusInternalServerError, "api_error", "", "Something went wrong")
		}
		return out
	})
	if meets(CutAfter) || meets(LostAfter) {
		panic(http.ErrAbortHandler)
	}
	if f != nil && f.late != nil {
		s.onLate()
		<-f.late
	}
	write(w, a, replayed)
}

// once calls do for a new idempotency key, or returns the answer stored for it:
// https://docs.stripe.com/api/idempotent_requests
func (s *Stripe) once(r *http.Request, call string, do func() *answer) (a *answer, replayed bool) {
	key := r.Header.Get("Idempotency-Key")
	if r.Header.Get("Authorization") != "Bearer "+Key {
		return problem(http.StatusUnauthorized, "invalid_request_error", "", "Invalid API Key provided"), false
	}
	if v := r.Header.Get("Stripe-Version"); v != stripe.APIVersion {
		return problem(http.StatusBadRequest, "invalid_request_error", "", "Invalid Stripe API version: "+v), false
	}
	if r.Method != http.MethodPost || key == "" {
		return do(), false
	}
	request := call + "?" + r.Form.Encode()
	s.mu.Lock()
	first := s.kept[key]
	if first == nil {
		s.kept[key] = &answer{request: request}
	}
	s.mu.Unlock()
	switch {
	case first == nil:
	case first.request != request:
		return problem(http.StatusBadRequest, "idempotency_error", "", "Keys for idempotent requests can only be used with the same parameters"), false
	case first.status == 0:
		return problem(http.StatusConflict, "idempotency_error", "idempotency_key_in_use", "There is another request with this key"), false
	default:
		return first, true
	}
	a = do()
	a.request = request
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.status == http.StatusNotFound || a.status == http.StatusBadRequest { // validation failures are not stored
		delete(s.kept, key)
		return a, false
	}
	s.kept[key] = a
	return a, false
}

func write(w http.ResponseWriter, a *answer, replayed bool) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Request-Id", "req_"+rand.Text()[:14])
	if replayed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

func reply(body any) *answer {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // plain values always marshal
	}
	return &answer{status: http.StatusOK, body: b}
}

func problem(status int, typ, code, message string) *answer {
	return failure(status, object{"type": typ, "code": code, "message": message})
}

func failure(status int, fault object) *answer {
	a := reply(object{"error": fault})
	a.status = status
	return a
}

// add adds an object. The caller holds mu.
func (s *Stripe) add(prefix, kind string, o object) object {
	id := prefix + "_" + rand.Text()
	o["id"], o["object"], o["created"], o["livemode"] = id, kind, time.Now().Unix(), false
	s.objects[id] = o
	s.ids = append(s.ids, id)
	return o
}
