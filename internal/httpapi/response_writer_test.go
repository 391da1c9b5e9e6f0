package httpapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	dto "github.com/prometheus/client_model/go"

	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/ratelimit"
)

// newTestAPI returns an API without domains.
func newTestAPI(memory *ratelimit.ByteBudget) *api {
	return &api{
		Config: Config{Log: slog.New(slog.DiscardHandler)}, Domains: Domains{Memory: memory}, metrics: newMetrics(nil, memory), stall: stallTimeout,
		mux: &mux{}, options: map[string]routeOptions{}, exact: map[exactRoute]routeOptions{},
	}
}

// smallBuffers is a listener whose connections keep little in the kernel.
type smallBuffers struct{ net.Listener }

func (l smallBuffers) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		err = conn.(*net.TCPConn).SetWriteBuffer(4 << 10)
	}
	return conn, err
}

// serveTCP serves handler behind the middleware and returns its address.
func serveTCP(t *testing.T, a *api, handler http.HandlerFunc) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: a.middleware(handler), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(smallBuffers{l}) }()
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

// ask sends a request and does not read the response. The client's receive buffer is
// small.
func ask(t *testing.T, address, path string) net.Conn {
	t.Helper()
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		_ = raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10) })
		return err
	}}
	conn, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestSlowReaderIsCutOff checks over TCP that a client that reads nothing loses its
// connection, for every kind of response, and that its memory is released.
func TestSlowReaderIsCutOff(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 8<<20)
	for name, handler := range map[string]func(*api, http.ResponseWriter, *http.Request){
		"JSON": func(_ *api, w http.ResponseWriter, _ *http.Request) { _ = jsonFormat.Marshal(w, big) },
		"page": func(_ *api, w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, big) },
		"CSV": func(a *api, w http.ResponseWriter, r *http.Request) {
			var rows iter.Seq2[credits.Transaction, error] = func(yield func(credits.Transaction, error) bool) {
				for yield(credits.Transaction{Description: "row"}, nil) {
				}
			}
			writeCSV(a, humago.NewContext(&huma.Operation{}, r, w), "credits", credits.ColumnNames, transactionRow, rows)
		},
		"stream": func(a *api, w http.ResponseWriter, _ *http.Request) {
			s := &stream{api: a, w: w, control: http.NewResponseController(w)}
			for s.send("data: event\n\n") == nil {
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			memory := ratelimit.NewByteBudget(64<<20, 32<<20)
			a := newTestAPI(memory)
			a.stall = 200 * time.Millisecond
			returned := make(chan struct{})
			address := serveTCP(t, a, func(w http.ResponseWriter, r *http.Request) {
				defer close(returned)
				handler(a, w, r)
			})
			conn := ask(t, address, "/")
			select {
			case <-returned:
			case <-time.After(30 * time.Second):
				t.Fatal("the handler still waits for its client")
			}
			// A page is written after its handler has returned: read only when it was cut off.
			cutOff := func() float64 {
				var cut dto.Metric
				_ = a.metrics.cut.Write(&cut)
				return cut.GetCounter().GetValue()
			}
			for deadline := time.Now().Add(30 * time.Second); cutOff() == 0 && time.Now().Before(deadline); {
				<-time.After(10 * time.Millisecond)
			}
			// The connection ends before the response is complete.
			_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
			got, err := io.ReadAll(conn)
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				t.Error("the connection is still open")
			}
			if strings.HasSuffix(string(got), "0\r\n\r\n") {
				t.Error("a part was sent as the whole")
			}
			if n := cutOff(); n != 1 {
				t.Errorf("%v answers were counted as cut off", n)
			}
			if used := memory.Stats().Used; used != 0 {
				t.Errorf("%d bytes are held", used)
			}
		})
	}
}

// pipes is a listener of connections in memory, which work with the time of
// testing/synctest.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// askThroughPipe serves one response of size bytes over a connection in memory. It returns
// the client's end, which has sent its request, and a function that stops the server.
func askThroughPipe(t *testing.T, a *api, size int) (client net.Conn, stop func()) {
	t.Helper()
	server := &http.Server{Handler: a.middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, size))
	})), ReadHeaderTimeout: time.Minute}
	listener := make(pipes, 1)
	client, theirs := net.Pipe()
	listener <- theirs
	close(listener)
	go func() { _ = server.Serve(listener) }()
	if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return client, func() { _ = server.Close() }
}

// TestStallTimeout checks that a slow client gets its response while it takes
// stallBytes within stallTimeout, up to the deadline of the whole response.
func TestStallTimeout(t *testing.T) {
	t.Parallel()
	const size = 256 << 10
	for name, c := range map[string]struct {
		bytes int // that the client reads
		every time.Duration
		whole bool
	}{
		"fast":                     {64 << 10, 0, true},
		"slow":                     {4 << 10, time.Second, true},              // 32 KiB in 8 s, all in 64 s
		"pauses":                   {32 << 10, 9 * time.Second, true},         // all in 81 s
		"too slow":                 {4 << 10, 4 * time.Second, false},         // 32 KiB in 32 s
		"a byte now and then":      {1, 10 * time.Second, false},              // each byte is progress
		"nothing":                  {1, time.Hour, false},                     //
		"slower than all may take": {2 << 10, 1200 * time.Millisecond, false}, // 32 KiB in 19 s, all in 154 s
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newTestAPI(nil)
				ours, stop := askThroughPipe(t, a, size)
				defer stop()
				begin := time.Now()
				got := readSlowly(ours, c.bytes, c.every)
				if whole := strings.HasSuffix(got, "0\r\n\r\n"); whole != c.whole {
					t.Errorf("whole is %v: %d bytes after %v", whole, len(got), time.Since(begin))
				}
			})
		})
	}
}

// readSlowly reads up to n bytes at a time until the connection ends.
func readSlowly(conn net.Conn, n int, every time.Duration) string {
	var all strings.Builder
	buf := make([]byte, n)
	for {
		<-time.After(every)
		_ = conn.SetReadDeadline(time.Now().Add(time.Hour))
		got, err := io.ReadFull(conn, buf)
		all.Write(buf[:got])
		if err != nil {
			return all.String()
		}
	}
}

// TestResponseMemory checks that the memory of responses that wait for their clients is
// bounded for each store. A store that has used its share is refused; others are
// served.
func TestResponseMemory(t *testing.T) {
	t.Parallel()
	const body = 1 << 20
	memory := ratelimit.NewByteBudget(8*body, 3*body)
	a := newTestAPI(memory)
	a.stall = time.Hour
	store := func(path string) ratelimit.Key { return ratelimit.Of("store", path) }
	address := serveTCP(t, a, func(w http.ResponseWriter, r *http.Request) {
		if !ratelimit.ReservationIn(r.Context()).Take(store(r.URL.Path), 1) {
			t.Error("no byte is left")
		}
		w.Header().Set("ETag", "of-the-body")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(make([]byte, body))
	})
	waiting := func(n int64) {
		t.Helper()
		deadline := time.After(30 * time.Second)
		for memory.Stats().Used/body != n {
			select {
			case <-deadline:
				t.Fatalf("%d bytes are held, want %d answers", memory.Stats().Used, n)
			case <-time.After(time.Millisecond):
			}
		}
	}
	read := func(conn net.Conn) *http.Response {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	var slow []net.Conn
	for range 2 { // a third would be above the share, by the bytes that were read
		slow = append(slow, ask(t, address, "/greedy"))
	}
	waiting(2)
	refused := read(ask(t, address, "/greedy"))
	_ = refused.Body.Close()
	if refused.StatusCode != http.StatusServiceUnavailable || refused.Header.Get("Retry-After") == "" || refused.Header.Get("ETag") != "" {
		t.Errorf("the third has %d %v", refused.StatusCode, refused.Header)
	}
	other := read(ask(t, address, "/other"))
	if other.StatusCode != http.StatusCreated {
		t.Errorf("another store has %d", other.StatusCode)
	}
	if n, err := io.Copy(io.Discard, other.Body); err != nil || n != body {
		t.Errorf("another store's answer has %d bytes: %v", n, err)
	}
	_ = other.Body.Close()
	for _, conn := range slow {
		if n, err := io.Copy(io.Discard, io.LimitReader(conn, body)); err != nil || n != body {
			t.Errorf("a slow client has %d bytes: %v", n, err)
		}
	}
	waiting(0)
	res := read(ask(t, address, "/greedy"))
	_ = res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		t.Errorf("after its clients have read the store has %d", res.StatusCode)
	}
}

// TestMemoryOfClientsThatLeave checks that a response whose client leaves stays counted for
// as long as the client could have waited, and one that was read does not.
func TestMemoryOfClientsThatLeave(t *testing.T) {
	t.Parallel()
	const size = 256 << 10
	for name, c := range map[string]struct {
		leaves  time.Duration // after the request
		reads   bool          // the whole response
		counted time.Duration // after the request
	}{
		"reads it":           {time.Second, true, 0},
		"leaves at once":     {0, false, stallTimeout},
		"leaves later":       {15 * time.Second, false, stallTimeout},
		"stays until cut":    {time.Hour, false, stallTimeout},
		"reads all and goes": {0, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				memory := ratelimit.NewByteBudget(8*size, 4*size)
				a := newTestAPI(memory)
				ours, stop := askThroughPipe(t, a, size)
				defer stop()
				begin := time.Now()
				synctest.Wait()
				if used := memory.Stats().Used; used != size {
					t.Errorf("%d bytes are counted while the client waits", used)
				}
				if c.reads {
					res, err := http.ReadResponse(bufio.NewReader(ours), nil)
					if err != nil {
						t.Fatal(err)
					}
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
				}
				defer time.AfterFunc(c.leaves, func() { _ = ours.Close() }).Stop()
				for memory.Stats().Used > 0 && time.Since(begin) < time.Minute {
					<-time.After(time.Second)
					synctest.Wait()
				}
				if took := time.Since(begin); took.Round(time.Second) > c.counted+time.Second || took < c.counted {
					t.Errorf("counted for %v, want %v", took, c.counted)
				}
			})
		})
	}
}

// TestUnencodableResponse checks that a response that cannot be encoded becomes a
// complete problem document with its own headers.
func TestUnencodableResponse(t *testing.T) {
	t.Parallel()
	type body struct {
		At time.Time `json:"at"`
	}
	a := newTestAPI(nil)
	a.huma = humago.New(a.mux, openAPI(""))
	bad := body{time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)}
	type output struct {
		Location string `header:"Location"`
		Body     body
	}
	route(a, fallbackOptions, huma.Operation{Method: http.MethodGet, Path: "/api/plain"}, func(context.Context, *struct{}) (*output, error) {
		return &output{"/api/elsewhere", bad}, nil
	})
	route(a, fallbackOptions, huma.Operation{Method: http.MethodGet, Path: "/api/stream"}, func(context.Context, *struct{}) (*huma.StreamResponse, error) {
		return a.jsonResponse(bad), nil
	})
	address := serveTCP(t, a, a.mux.ServeHTTP)
	for _, path := range []string{"/api/plain", "/api/stream"} {
		res, err := http.ReadResponse(bufio.NewReader(ask(t, address, path)), nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != http.StatusInternalServerError || res.Header.Get("Content-Type") != "application/problem+json" ||
			res.Header.Get("Location") != "" || !strings.HasPrefix(string(text), `{"type":"about:blank"`) || !strings.Contains(string(text), `"code":"internal"`) {
			t.Errorf("%s: %d %v %s: %v", path, res.StatusCode, res.Header, text, err)
		}
	}
}

// TestResponseWriterRecords checks that the access log contains what was sent, also
// without an explicit status.
func TestResponseWriterRecords(t *testing.T) {
	t.Parallel()
	answer := httptest.NewRecorder()
	w := &responseWriter{ResponseWriter: answer, control: http.NewResponseController(answer)}
	if _, err := w.Write([]byte("four")); err != nil || w.status != 200 || w.bytes != 4 {
		t.Errorf("status %d, %d bytes, %v", w.status, w.bytes, err)
	}
	w = &responseWriter{ResponseWriter: httptest.NewRecorder()}
	w.WriteHeader(404)
	w.WriteHeader(500)
	if w.status != 404 {
		t.Errorf("status %d, want the first", w.status)
	}
}
