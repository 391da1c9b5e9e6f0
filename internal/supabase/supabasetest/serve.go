package supabasetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// object is a resource as the API represents it.
type object = map[string]any

// Fault is a way in which a call fails.
type Fault int

// The faults.
const (
	Broken      Fault = iota + 1 // status 500; the call has no effect
	BrokenAfter                  // status 500; the call has taken effect
	Cut                          // the connection is closed; the call has no effect
	CutAfter                     // the connection is closed; the call has taken effect
	Hang                         // no answer until the client disconnects
	Busy                         // status 429
)

type fault struct {
	call    string
	fault   Fault
	reached chan struct{} // not nil: there is no fault, but the answer waits for release
	release chan struct{}
}

// Break makes the next calls of a kind, such as "POST /v1/projects/{ref}/database/query",
// fail with these faults, one fault for each call.
func (s *Server) Break(call string, faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustKnow(call)
	for _, f := range faults {
		s.faults = append(s.faults, &fault{call: call, fault: f})
	}
}

// Delay delays the answer to the next call of a kind. The answer contains the state at
// the time of the call. Delay returns a channel that is closed when the answer is ready,
// and the function that sends the answer.
func (s *Server) Delay(call string) (asked <-chan struct{}, release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustKnow(call)
	f := &fault{call: call, reached: make(chan struct{}), release: make(chan struct{})}
	s.faults = append(s.faults, f)
	return f.reached, func() { close(f.release) }
}

// Alter applies change to each object in all later answers to a kind of call. A nil
// change ends that.
func (s *Server) Alter(call string, change func(map[string]any)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustKnow(call)
	s.lies[call] = change
}

// Count returns how often a kind of call was made.
func (s *Server) Count(call string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustKnow(call)
	return s.calls[call]
}

// mustKnow panics for a call that has no route, so that a test cannot wait for a call
// that never comes.
func (s *Server) mustKnow(call string) {
	if _, ok := s.calls[call]; !ok {
		panic(fmt.Sprintf("the stand-in has no call %q", call))
	}
}

// SetRateLimit sets how many calls the app can make per minute, from now on.
func (s *Server) SetRateLimit(calls int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window = window{limit: calls}
}

// window counts an app's calls in the minute that begins with the first call.
type window struct {
	limit, used int
	ends        time.Time
}

// take counts a call and reports whether it is within the limit.
func (w *window) take(now time.Time) bool {
	if !now.Before(w.ends) {
		w.used, w.ends = 0, now.Add(time.Minute)
	}
	if w.used >= w.limit {
		return false
	}
	w.used++
	return true
}

func (w *window) describe(h http.Header, now time.Time, remaining int) {
	h.Set("X-RateLimit-Limit", strconv.Itoa(w.limit))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(remaining))
	h.Set("X-RateLimit-Reset", strconv.Itoa(1+max(0, int(w.ends.Sub(now).Seconds()))))
}

// answer is an HTTP answer.
type answer struct {
	status int
	header http.Header
	body   any // sent as JSON; a string is sent as an HTML page
}

func reply(body any) *answer {
	return &answer{status: http.StatusOK, header: http.Header{}, body: body}
}

func problem(status int, format string, args ...any) *answer {
	return &answer{status: status, header: http.Header{}, body: object{"message": fmt.Sprintf(format, args...)}}
}

// rows are the rows of a query. Their columns depend on the query, so that shown does not
// change them.
type rows []object

func (s *Server) route(call string, handle func(*http.Request) *answer) {
	s.calls[call] = 0
	s.mux.HandleFunc(call, func(w http.ResponseWriter, r *http.Request) {
		// The HTTP server detects that a client has disconnected only after the body is
		// read.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			s.write(w, r, call, problem(http.StatusRequestEntityTooLarge, "request entity too large"))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.handling.RLock()
		defer s.handling.RUnlock()
		if s.closed {
			panic(http.ErrAbortHandler)
		}
		s.meet(w, r, call, handle)
	})
}

// meet answers a call, or fails it with the fault that is set for it.
func (s *Server) meet(w http.ResponseWriter, r *http.Request, call string, handle func(*http.Request) *answer) {
	f := s.begin(call)
	switch f.fault {
	case Hang:
		<-r.Context().Done()
	case Cut:
		panic(http.ErrAbortHandler)
	case Broken:
		s.write(w, r, call, problem(http.StatusInternalServerError, "Internal server error"))
	case Busy:
		s.write(w, r, call, s.tooMany())
	default:
		a := handle(r)
		if r.Method == http.MethodPost {
			s.save()
		}
		switch f.fault {
		case CutAfter:
			panic(http.ErrAbortHandler)
		case BrokenAfter:
			a = problem(http.StatusInternalServerError, "Internal server error")
		default:
		}
		if f.reached != nil {
			close(f.reached)
			select {
			case <-f.release:
			case <-r.Context().Done():
			}
		}
		s.write(w, r, call, a)
	}
}

// begin counts a call and removes and returns its next fault.
func (s *Server) begin(call string) fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[call]++
	for i, f := range s.faults {
		if f.call == call {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
			return *f
		}
	}
	return fault{}
}

func (s *Server) tooMany() *answer {
	a := problem(http.StatusTooManyRequests, "ThrottlerException: Too Many Requests")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window.describe(a.header, s.now(), 0)
	return a
}

func (s *Server) write(w http.ResponseWriter, r *http.Request, call string, a *answer) {
	maps.Copy(w.Header(), a.header)
	if page, ok := a.body.(string); ok {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, page)
		return
	}
	if a.body == nil {
		w.WriteHeader(a.status)
		return
	}
	if a.status < 300 && r.Method == http.MethodPost && s.options.Success != 0 {
		a.status = s.options.Success
	}
	s.mu.Lock()
	lie := s.lies[call]
	s.mu.Unlock()
	body, err := json.Marshal(shown(a.body, lie))
	if err != nil {
		panic(err) // plain values cannot fail
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
}

// shown adds to every object a field that a future version of the API could have, and
// applies the change that a test has set with Alter.
func shown(body any, lie func(object)) any {
	switch b := body.(type) {
	case object:
		out := object{"x_new": object{"since": 2027, "list": []any{nil, 1.5}}}
		for k, v := range b {
			out[k] = shown(v, nil)
		}
		if lie != nil {
			lie(out)
		}
		return out
	case []object:
		out := []any{}
		for _, o := range b {
			out = append(out, shown(o, lie))
		}
		return out
	}
	return body
}
