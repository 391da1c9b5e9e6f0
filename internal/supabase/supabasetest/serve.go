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

// object is a resource as the API shows it.
type object = map[string]any

// Fault is a way to fail.
type Fault int

// The faults.
const (
	Broken      Fault = iota + 1 // 500, and nothing has happened
	BrokenAfter                  // 500, but it has happened
	Cut                          // the connection ends before anything has happened
	CutAfter                     // it has happened, but the connection ends
	Hang                         // no answer until the client gives up
	Busy                         // 429
)

type fault struct {
	call    string
	fault   Fault
	reached chan struct{} // instead of a fault: the answer waits for release
	release chan struct{}
}

// Break has the next calls of a kind, such as
// "POST /v1/projects/{ref}/database/query", meet these faults, one each.
func (s *Server) Break(call string, faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustKnow(call)
	for _, f := range faults {
		s.faults = append(s.faults, &fault{call: call, fault: f})
	}
}

// Delay holds back the answer to the next call of a kind: it says how things
// were when it was asked. It returns a channel that is closed when the answer
// is ready, and the function that lets it go.
func (s *Server) Delay(call string) (asked <-chan struct{}, release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustKnow(call)
	f := &fault{call: call, reached: make(chan struct{}), release: make(chan struct{})}
	s.faults = append(s.faults, f)
	return f.reached, func() { close(f.release) }
}

// Alter changes each object of all later answers to a kind of call. Nil ends
// it.
func (s *Server) Alter(call string, change func(map[string]any)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustKnow(call)
	s.lies[call] = change
}

// Count says how often a kind of call was made.
func (s *Server) Count(call string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustKnow(call)
	return s.calls[call]
}

// mustKnow finds the test that watches a call that cannot come.
func (s *Server) mustKnow(call string) {
	if _, ok := s.calls[call]; !ok {
		panic(fmt.Sprintf("the stand-in has no call %q", call))
	}
}

// SetRateLimit changes how many calls the app has per minute, from now on.
func (s *Server) SetRateLimit(calls int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window = window{limit: calls}
}

// window counts an app's calls in the minute that begins with the first.
type window struct {
	limit, used int
	ends        time.Time
}

// take reports whether there is room for one call more.
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

// answer is one, ready to be sent.
type answer struct {
	status int
	header http.Header
	body   any // JSON; a string is a page
}

func reply(body any) *answer {
	return &answer{status: http.StatusOK, header: http.Header{}, body: body}
}

func problem(status int, format string, args ...any) *answer {
	return &answer{status: status, header: http.Header{}, body: object{"message": fmt.Sprintf(format, args...)}}
}

// rows are a query's, whose columns are the caller's own.
type rows []object

func (s *Server) route(call string, handle func(*http.Request) *answer) {
	s.calls[call] = 0
	s.mux.HandleFunc(call, func(w http.ResponseWriter, r *http.Request) {
		// The server notices that a client has gone only when the body is read.
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

// meet answers a call, or has it meet its fault.
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

// begin counts a call and takes the fault that waits for it.
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
		panic(err) // made of plain values
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
}

// shown adds to every object what next year's API may have, and a test's lie.
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
