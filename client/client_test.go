package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stoahq/stoa/client"
)

// server answers with the next of several handlers, the last one again and again, and records
// the requests.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	bodies   []string
}

func newServer(t *testing.T, handlers ...http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		n := len(s.requests)
		s.requests, s.bodies = append(s.requests, r), append(s.bodies, string(body))
		s.mu.Unlock()
		handlers[min(n, len(handlers)-1)](w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) client(t *testing.T, options ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New(s.URL, options...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func problem(status int, code string, header ...string) http.HandlerFunc {
	return answer(status, `{"type":"about:blank","title":"x","status":0,"detail":"d","code":"`+code+`","requestId":"r"}`, header...)
}

func spend() client.SpendRequest {
	return client.SpendRequest{ServiceKey: client.Pointer("product_import"), Quantity: client.Pointer(int64(1))}
}

// TestRetries checks which calls are repeated, and that all attempts have the same key.
func TestRetries(t *testing.T) {
	t.Parallel()
	spent := answer(200, `{"balance":{"balance":"1"}}`)
	cut := answer(200, `{"data":[`, "Content-Length", "1000")
	for name, c := range map[string]struct {
		handlers []http.HandlerFunc
		call     func(*client.Client) error
		want     int // requests
		fails    bool
	}{
		"unavailable, with a key": {[]http.HandlerFunc{problem(503, "platform_unavailable"), problem(503, "platform_unavailable"), spent},
			func(c *client.Client) error { _, err := c.Credits.Spend(t.Context(), spend()); return err }, 3, false},
		"a lost connection, with a key": {[]http.HandlerFunc{func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, spent},
			func(c *client.Client) error { _, err := c.Credits.Spend(t.Context(), spend()); return err }, 2, false},
		"unavailable, a reading": {[]http.HandlerFunc{answer(502, "<html>bad gateway"), answer(200, `{"data":[],"nextCursor":null}`)},
			func(c *client.Client) error { _, err := c.Stores.List(t.Context(), nil); return err }, 2, false},
		"unavailable, without a key": {[]http.HandlerFunc{problem(503, "platform_unavailable")},
			func(c *client.Client) error { _, err := c.Hostnames.Verify(t.Context(), "x", "y"); return err }, 1, true},
		"too many requests, without a key": {[]http.HandlerFunc{problem(429, "rate_limited", "Retry-After", "1"), answer(200, `{}`)},
			func(c *client.Client) error { _, err := c.Hostnames.Verify(t.Context(), "x", "y"); return err }, 2, false},
		"too long a pause": {[]http.HandlerFunc{problem(429, "rate_limited", "Retry-After", "3600")},
			func(c *client.Client) error { _, err := c.Stores.List(t.Context(), nil); return err }, 1, true},
		"under way, with a key": {[]http.HandlerFunc{problem(409, "idempotency_conflict", "Retry-After", "1"), spent},
			func(c *client.Client) error { _, err := c.Credits.Spend(t.Context(), spend()); return err }, 2, false},
		"a conflict": {[]http.HandlerFunc{problem(409, "idempotency_conflict")},
			func(c *client.Client) error { _, err := c.Credits.Spend(t.Context(), spend()); return err }, 1, true},
		"half an answer": {[]http.HandlerFunc{cut, answer(200, `{"data":[],"nextCursor":null}`)},
			func(c *client.Client) error { _, err := c.Stores.List(t.Context(), nil); return err }, 2, false},
		"half an answer, without a key": {[]http.HandlerFunc{cut},
			func(c *client.Client) error { _, err := c.Hostnames.Verify(t.Context(), "x", "y"); return err }, 1, true},
		"a date as pause": {[]http.HandlerFunc{problem(503, "platform_unavailable", "Retry-After", "Mon, 02 Jan 2006 15:04:05 GMT"), answer(200, `{}`)},
			func(c *client.Client) error { return c.Members.Delete(t.Context(), "x", "y") }, 2, false},
		"refused": {[]http.HandlerFunc{problem(402, "insufficient_credits")},
			func(c *client.Client) error { _, err := c.Credits.Spend(t.Context(), spend()); return err }, 1, true},
		"always unavailable": {[]http.HandlerFunc{problem(503, "platform_unavailable")},
			func(c *client.Client) error { _, err := c.Stores.List(t.Context(), nil); return err }, 4, true},
		"a stream is sent once": {[]http.HandlerFunc{problem(503, "platform_unavailable")},
			func(c *client.Client) error {
				_, err := c.Backups.Upload(t.Context(), "x", strings.NewReader("archive"))
				return err
			}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, c.handlers...)
			if err := c.call(s.client(t, client.WithAPIKey("k"))); (err != nil) != c.fails {
				t.Errorf("the call: %v", err)
			}
			if len(s.requests) != c.want {
				t.Errorf("%d requests, want %d", len(s.requests), c.want)
			}
			keys := map[string]bool{}
			for i, r := range s.requests {
				keys[r.Header.Get("Idempotency-Key")] = true
				if s.bodies[i] != s.bodies[0] || r.Header.Get("Authorization") != "Bearer k" {
					t.Errorf("attempt %d: %q, %v", i, s.bodies[i], r.Header)
				}
			}
			if len(keys) != 1 {
				t.Errorf("keys %v", keys)
			}
		})
	}
}

// TestProblems checks that an answer that is an error becomes one with its code.
func TestProblems(t *testing.T) {
	t.Parallel()
	c := newServer(t, answer(422, `{"title":"x","status":422,"detail":"Correct it.","code":"invalid_request","requestId":"r1","errors":[{"field":"name","message":"is required"}]}`)).client(t)
	_, err := c.Credits.Spend(t.Context(), spend())
	var e *client.Error
	if !client.HasCode(err, client.ProblemCodeInternal, client.ProblemCodeInvalidRequest) || client.HasCode(err, client.ProblemCodeInternal) || !errors.As(err, &e) || e.Status != 422 {
		t.Fatalf("%#v", err)
	}
	if text := err.Error(); text != "stoa: invalid_request: Correct it. (name: is required) [request r1]" {
		t.Error(text)
	}
	for name, answer := range map[string]http.HandlerFunc{
		"not the API's answer": answer(404, "<html>nothing"),
		"a redirect":           answer(301, "", "Location", "https://elsewhere.example.com/"),
		"too long an answer":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, io.LimitReader(spaces{}, 33<<20)) },
	} {
		s := newServer(t, answer)
		if _, err = s.client(t).Stores.Get(t.Context(), "x"); !errors.As(err, &e) || e.Code != "" || len(s.requests) != 1 {
			t.Errorf("%s: %#v", name, err)
		}
	}
	if _, err := newServer(t, answer(200, "<html>hello")).client(t).Stores.Get(t.Context(), "x"); err == nil {
		t.Error("a page is accepted as a store")
	}
}

// spaces is an endless text.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte(" "), len(p))), nil }

// TestAddresses checks addresses and ids before anything is sent.
func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "stoa.example.com", "ftp://stoa.example.com", "http://", "://", "https://user:secret@stoa.example.com", "https://stoa.example.com?x=1"} {
		if _, err := client.New(address); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("the address %q: %v", address, err)
		}
	}
	s := newServer(t, answer(200, `{}`))
	c := s.client(t)
	for _, id := range []string{"", ".", ".."} {
		if _, err := c.Stores.Get(t.Context(), id); err == nil {
			t.Errorf("the id %q is sent", id)
		}
	}
	if _, err := c.Hostnames.Verify(t.Context(), "{}/../x?y", "a/b"); err != nil {
		t.Fatal(err)
	}
	if got, want := s.requests[0].RequestURI, "/api/stores/%7B%7D%2F..%2Fx%3Fy/hostnames/a%2Fb/verify"; len(s.requests) != 1 || got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestCallOptions checks what options send and return.
func TestCallOptions(t *testing.T) {
	t.Parallel()
	s := newServer(t, answer(200, `{"id":"1"}`, "ETag", `"2"`))
	c := s.client(t)
	var header http.Header
	_, err := c.Stores.Update(t.Context(), "x", client.ProfilePatch{Settings: map[string]any{}}, client.IfMatch(`"1"`), client.SaveHeader(&header))
	if err != nil || header.Get("ETag") != `"2"` || s.requests[0].Header.Get("Stoa-Version") != client.Version || client.Version == "" || s.requests[0].Header.Get("If-Match") != `"1"` || s.bodies[0] != `{"settings":{}}` {
		t.Errorf("%v, %v, %v, %s", err, header, s.requests[0].Header, s.bodies[0])
	}
	_, err = c.Holds.Capture(t.Context(), "h", nil, client.WithIdempotencyKey("k"), client.InStore("s"))
	if r := s.requests[1]; err != nil || s.bodies[1] != "" || r.Header.Get("Content-Type") != "" || r.Header.Get("Idempotency-Key") != "k" || r.Header.Get("X-Store-Id") != "s" || r.Header.Get("Authorization") != "" {
		t.Errorf("%v, %v, %s", err, r.Header, s.bodies[1])
	}
	response, err := c.Do(t.Context(), "GET", "/api/credits/transactions?type=spend", nil, client.WithHeader("Accept", "text/csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if r := s.requests[2]; r.Header.Get("Accept") != "text/csv" || r.URL.Query().Get("type") != "spend" {
		t.Errorf("%s, %v", r.URL, r.Header)
	}
}

// TestTokensAreRenewedOnce expires the token of many concurrent calls.
func TestTokensAreRenewedOnce(t *testing.T) {
	t.Parallel()
	var refreshes, changes atomic.Int64
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/api/auth/refresh":
			refreshes.Add(1)
			answer(200, `{"accessToken":"new","refreshToken":"next","tokenType":"Bearer","expiresIn":900}`)(w, r)
		case r.Header.Get("Authorization") == "Bearer new":
			answer(200, `{"data":[],"nextCursor":null}`)(w, r)
		default:
			problem(401, "token_expired")(w, r)
		}
	})
	c := s.client(t, client.WithTokens(client.Tokens{AccessToken: "old", RefreshToken: "first"}, func(tokens client.Tokens) {
		if changes.Add(1); tokens.RefreshToken != "next" {
			t.Errorf("the new tokens are %+v", tokens)
		}
	}))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := c.Stores.List(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if refreshes.Load() != 1 || changes.Load() != 1 {
		t.Errorf("%d refreshes, %d changes", refreshes.Load(), changes.Load())
	}
	refused := newServer(t, problem(401, "token_expired"))
	if _, err := refused.client(t, client.WithTokens(client.Tokens{AccessToken: "a", RefreshToken: "b"}, nil)).Stores.List(t.Context(), nil); !client.HasCode(err, client.ProblemCodeTokenExpired) || len(refused.requests) != 2 {
		t.Errorf("%v after %d requests", err, len(refused.requests))
	}
}

// TestPages reads all pages of a list, and ends early.
func TestPages(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("limit") != "2" {
			t.Errorf("query %s", r.URL.RawQuery)
		}
		switch q.Get("cursor") {
		case "":
			answer(200, `{"data":[{"name":"a"},{"name":"b"}],"nextCursor":"2&"}`)(w, r)
		case "2&":
			answer(200, `{"data":[{"name":"c"}],"nextCursor":null}`)(w, r)
		}
	})
	c := s.client(t)
	params := &client.StoresListParams{Limit: client.Pointer(int64(2))}
	all := c.Stores.All(t.Context(), params)
	for range 2 { // an iterator can be used again
		var names []string
		for store, err := range all {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, store.Name)
		}
		if !slices.Equal(names, []string{"a", "b", "c"}) || params.Cursor != nil {
			t.Errorf("%v, %v", names, params.Cursor)
		}
	}
	for _, err := range all {
		if err != nil {
			t.Error(err)
		}
		break
	}
	if len(s.requests) != 5 {
		t.Errorf("%d requests", len(s.requests))
	}
	for name, handler := range map[string]http.HandlerFunc{
		"refused":        problem(403, "forbidden"),
		"without an end": answer(200, `{"data":[],"nextCursor":"x"}`),
	} {
		failed := 0
		for _, err := range newServer(t, handler).client(t).Stores.All(t.Context(), nil) {
			if err == nil {
				t.Errorf("%s: an item", name)
			}
			failed++
		}
		if failed != 1 {
			t.Errorf("%s: %d errors", name, failed)
		}
	}
}

// TestUnreachable repeats a call without a key, since nothing was sent.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	dials := 0
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		dials++
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}}
	c, err := client.New("http://stoa.example.com", client.WithHTTPClient(&http.Client{Transport: transport}), client.WithRetries(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Stores.Suspend(t.Context(), "x"); !errors.Is(err, syscall.ECONNREFUSED) || dials != 2 {
		t.Errorf("%v after %d attempts", err, dials)
	}
}

// TestContextEndsTheRetries ends a call while it waits for its next attempt.
func TestContextEndsTheRetries(t *testing.T) {
	t.Parallel()
	s := newServer(t, problem(503, "platform_unavailable", "Retry-After", "20"))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	_, err := s.client(t).Stores.List(ctx, nil)
	if !errors.Is(err, context.DeadlineExceeded) || !client.HasCode(err, client.ProblemCodePlatformUnavailable) || time.Since(begun) > 10*time.Second {
		t.Errorf("%v after %s", err, time.Since(begun))
	}
}

// TestRefresh checks when tokens are exchanged, and what becomes of the calls.
func TestRefresh(t *testing.T) {
	t.Parallel()
	fresh := func(expires int) http.HandlerFunc {
		return answer(200, fmt.Sprintf(`{"accessToken":"new","refreshToken":"next","tokenType":"Bearer","expiresIn":%d}`, expires))
	}
	list := answer(200, `{"data":[],"nextCursor":null}`)
	for name, c := range map[string]struct {
		tokens   client.Tokens
		handlers []http.HandlerFunc
		want     []string // paths
		fails    client.ProblemCode
	}{
		"a refresh token alone": {client.Tokens{RefreshToken: "r"}, []http.HandlerFunc{fresh(900), list}, []string{"/api/auth/refresh", "/api/stores", "/api/stores"}, ""},
		"before its end": {client.Tokens{RefreshToken: "r"}, []http.HandlerFunc{fresh(5), list, fresh(900), list},
			[]string{"/api/auth/refresh", "/api/stores", "/api/auth/refresh", "/api/stores"}, ""},
		"a lost answer": {client.Tokens{RefreshToken: "r"}, []http.HandlerFunc{func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, fresh(900), list},
			[]string{"/api/auth/refresh", "/api/auth/refresh", "/api/stores", "/api/stores"}, ""},
		"no refresh token": {client.Tokens{AccessToken: "a"}, []http.HandlerFunc{problem(401, "token_expired")}, []string{"/api/stores", "/api/stores"}, client.ProblemCodeTokenExpired},
		"a session that ended": {client.Tokens{AccessToken: "a", RefreshToken: "r"}, []http.HandlerFunc{problem(401, "token_expired"), problem(401, "session_revoked")},
			[]string{"/api/stores", "/api/auth/refresh", "/api/stores"}, client.ProblemCodeSessionRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, c.handlers...)
			stoa := s.client(t, client.WithTokens(c.tokens, nil))
			for range 2 {
				if _, err := stoa.Stores.List(t.Context(), nil); err != nil && c.fails == "" || c.fails != "" && !client.HasCode(err, c.fails) {
					t.Error(err)
				}
			}
			var paths []string
			for _, r := range s.requests {
				paths = append(paths, r.URL.Path)
			}
			if !slices.Equal(paths, c.want) {
				t.Errorf("%v, want %v", paths, c.want)
			}
		})
	}
}

// TestRefreshOutlivesItsCaller ends the call that caused an exchange: the new tokens are
// neither lost, nor is the refresh token used twice.
func TestRefreshOutlivesItsCaller(t *testing.T) {
	t.Parallel()
	arrived, proceed, stored := make(chan struct{}), make(chan struct{}), make(chan client.Tokens, 2)
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-proceed
		answer(200, `{"accessToken":"new","refreshToken":"next","expiresIn":900}`)(w, r)
	}, answer(200, `{"data":[],"nextCursor":null}`))
	c := s.client(t, client.WithTokens(client.Tokens{RefreshToken: "r"}, func(tokens client.Tokens) { stored <- tokens }))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := c.Stores.List(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("the call that was ended: %v", err)
	}
	close(proceed)
	if tokens := <-stored; tokens.RefreshToken != "next" {
		t.Errorf("%+v", tokens)
	}
	if _, err := c.Stores.List(t.Context(), nil); err != nil || len(s.requests) != 2 {
		t.Errorf("%v after %d requests", err, len(s.requests))
	}
}

// TestEvents follows a stream through a broken connection.
func TestEvents(t *testing.T) {
	t.Parallel()
	stream := func(text string) http.HandlerFunc { return answer(200, text, "Content-Type", "text/event-stream") }
	s := newServer(t,
		answer(200, ": hello\n\nid: 1\ndata: {\"attempt\":1,\ndata: \"state\":\"queued\"}\n\nid: 2\ndata: {\"atte", "Content-Length", "1000"),
		stream("id: 2\ndata: {\"attempt\":2}\n\n"),
		answer(204, ""))
	var attempts []int64
	for event, err := range s.client(t).Provisioning.Events(t.Context(), "x") {
		if err != nil {
			t.Fatal(err)
		}
		attempts = append(attempts, event.Attempt)
	}
	var last []string
	for _, r := range s.requests {
		last = append(last, r.Header.Get("Last-Event-ID"))
	}
	if !slices.Equal(attempts, []int64{1, 2}) || !slices.Equal(last, []string{"", "1", "2"}) {
		t.Errorf("%v after connections with %q", attempts, last)
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    int // requests
	}{
		"no events":         {stream(""), 2},
		"refused":           {problem(404, "store_not_found"), 1},
		"no JSON":           {stream("data: x\n\n"), 1},
		"too long a line":   {stream("data: " + strings.Repeat("x", 2<<20) + "\n\n"), 1},
		"too long an event": {stream(strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", 2000) + "\n"), 1},
	} {
		s, failed := newServer(t, c.handler), 0
		for _, err := range s.client(t, client.WithRetries(1)).Provisioning.Events(t.Context(), "x") {
			if failed++; err == nil {
				t.Errorf("%s: an event", name)
			}
		}
		if failed != 1 || len(s.requests) != c.want {
			t.Errorf("%s: %d errors after %d requests", name, failed, len(s.requests))
		}
	}
}

// TestQuietStream follows a stream whose connections end after minutes without an event.
func TestQuietStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		transport := roundTripper(func(r *http.Request) (*http.Response, error) {
			n++
			response := &http.Response{StatusCode: 200, Request: r, Body: io.NopCloser(&later{wait: 10 * time.Minute})}
			switch n {
			case 6:
				response.Body = io.NopCloser(strings.NewReader("id: 1\ndata: {}\n\n"))
			case 7:
				response.StatusCode, response.Body = 204, http.NoBody
			}
			return response, nil
		})
		c, err := client.New("https://stoa.example.com", client.WithHTTPClient(&http.Client{Transport: transport}))
		if err != nil {
			t.Fatal(err)
		}
		events := 0
		for _, err := range c.Provisioning.Events(t.Context(), "x") {
			if err != nil {
				t.Fatal(err)
			}
			events++
		}
		if events != 1 || n != 7 {
			t.Errorf("%d events after %d connections", events, n)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// later is a body that ends after a while.
type later struct{ wait time.Duration }

func (l *later) Read([]byte) (int, error) {
	<-time.After(l.wait)
	return 0, io.EOF
}

// TestTimeout ends an attempt that has no answer, but not a stream that has begun.
func TestTimeout(t *testing.T) {
	t.Parallel()
	end, begun := make(chan struct{}), make(chan struct{})
	t.Cleanup(sync.OnceFunc(func() { close(end) }))
	s := newServer(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-end:
		case <-r.Context().Done():
		}
	}, answer(200, `{}`))
	if _, err := s.client(t, client.WithTimeout(500*time.Millisecond)).Stores.Get(t.Context(), "x"); err != nil || len(s.requests) < 2 {
		t.Errorf("%v after %d requests", err, len(s.requests))
	}
	slow := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "{")
		_ = http.NewResponseController(w).Flush()
		<-begun
		_, _ = io.WriteString(w, "}")
	})
	const timeout = 500 * time.Millisecond
	response, err := slow.client(t, client.WithTimeout(timeout)).Account.Export(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	time.AfterFunc(3*timeout, func() { close(begun) })
	if text, err := io.ReadAll(response.Body); err != nil || string(text) != "{}" {
		t.Errorf("%s, %v", text, err)
	}
}
