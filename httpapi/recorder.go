package httpapi

import (
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/limits"
)

const (
	// A client has to take stallBytes of an answer within stallTimeout of
	// waiting for it: whoever reads nothing, or slower, is cut off.
	stallBytes   = 32 << 10
	stallTimeout = 20 * time.Second
	// sendTimeout bounds the sending as a whole, after the time that the request
	// has to be worked on.
	sendTimeout = 90 * time.Second
	// freeWrite is what a handler may write at once without counting it: net/http
	// has buffers of this size.
	freeWrite = 4 << 10
)

// recorder is an answer's way to its client. It notes what was answered, keeps
// the status until the first byte of the body is there, counts the bytes that
// wait for the client, and cuts off a client that does not take them.
type recorder struct {
	http.ResponseWriter
	control *http.ResponseController // of the ResponseWriter
	memory  *limits.ByteBudget
	held    *limits.Reservation
	client  limits.Key    // whose memory it is if the request has read no store's database
	stall   time.Duration // stallTimeout, but in tests
	until   time.Time     // when all has to be sent

	draining <-chan struct{} // once it is closed, an answer ends its connection

	status  int
	bytes   int64
	sent    bool          // the status has left
	refused bool          // there was no memory for the body: it was dropped
	cut     bool          // the client has not taken it in time
	taken   int           // bytes of the present stallBytes
	waited  time.Duration // for these
}

// WriteHeader notes the status. It leaves with the first byte of the body or
// with finish, so that a body which cannot be made can still become another
// answer.
func (w *recorder) WriteHeader(status int) {
	if status < http.StatusOK {
		w.ResponseWriter.WriteHeader(status)
	} else if w.status == 0 {
		w.status = status
		if status == http.StatusNoContent {
			w.Header().Del("Content-Type") // huma sets it for every answer
		}
	}
}

func (w *recorder) sendStatus() {
	if w.sent {
		return
	}
	w.sent = true
	if w.status == 0 {
		w.status = http.StatusOK
	}
	if isClosed(w.draining) {
		w.Header().Set("Connection", "close")
	}
	w.ResponseWriter.WriteHeader(w.status)
}

// Write sends b, whose memory counts until the client has taken it. Without
// room for it nothing is sent: see refused.
func (w *recorder) Write(b []byte) (int, error) {
	if w.refused || len(b) == 0 {
		return len(b), nil
	}
	if n := int64(len(b)); n > freeWrite {
		k := w.key()
		if !w.memory.Take(k, n) {
			if w.sent {
				panic(http.ErrAbortHandler) // the client must not take a part for the whole
			}
			w.refused = true
			return len(b), nil
		}
		defer w.memory.Give(k, n)
	}
	w.sendStatus()
	all := 0
	for len(b) > 0 {
		n, err := w.send(b[:min(len(b), stallBytes-w.taken)])
		all += n
		if err != nil {
			return all, err
		}
		b = b[n:]
	}
	return all, nil
}

// key is the store whose database the request has read, or else the client.
func (w *recorder) key() limits.Key {
	if k, ok := w.held.Key(); ok {
		return k
	}
	return w.client
}

func (w *recorder) send(b []byte) (n int, err error) {
	err = w.await(func() (err error) {
		n, err = w.ResponseWriter.Write(b)
		return err
	})
	w.bytes += int64(n)
	if w.taken += n; w.taken >= stallBytes {
		w.taken, w.waited = 0, 0
	}
	return n, err
}

// await runs op, which may wait for the client, for as long as the client has
// left.
func (w *recorder) await(op func() error) error {
	begin := time.Now()
	w.setDeadline(begin)
	err := op()
	w.waited += time.Since(begin)
	w.cut = w.cut || errors.Is(err, os.ErrDeadlineExceeded)
	return err
}

func (w *recorder) setDeadline(now time.Time) {
	deadline := now.Add(w.stall - w.waited)
	if w.until.Before(deadline) {
		deadline = w.until
	}
	_ = w.control.SetWriteDeadline(deadline) // a writer without a connection has none
}

// FlushError is what http.ResponseController calls.
func (w *recorder) FlushError() error {
	w.sendStatus()
	return w.await(w.control.Flush)
}

// finish sends the status of an answer without a body. The server sends what
// is still in its buffers when the handler has returned.
func (w *recorder) finish() {
	if w.status != 0 {
		w.sendStatus()
	}
	w.setDeadline(time.Now())
}

// reset forgets an answer of which nothing was sent, and the headers that were
// about its body.
func (w *recorder) reset() {
	w.status, w.refused = 0, false
	for _, name := range []string{"Content-Type", "Content-Length", "Content-Disposition", "Content-Encoding", "ETag", "Last-Modified", "Location", "Set-Cookie"} {
		w.Header().Del(name)
	}
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// noMemory is the answer to a request whose own answer found no room.
func noMemory() error {
	e := stoa.Errorf(stoa.TenantUnavailable, "Too many answers wait for their readers at the moment. Try again shortly.")
	e.RetryAfter = memoryRetryAfter
	return e
}

const memoryRetryAfter = 5 * time.Second
