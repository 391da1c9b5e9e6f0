package httpapi

import (
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/ratelimit"
)

const (
	// A client has to take stallBytes of a response within stallTimeout of waiting
	// for it. The connection of a slower client is closed.
	stallBytes   = 32 << 10
	stallTimeout = 20 * time.Second
	// sendTimeout bounds the sending of a response, after the route's timeout.
	sendTimeout = 90 * time.Second
	// heldBack is how much of a body net/http keeps until the handler returns, in bytes
	// (bufferBeforeChunkingSize): such a body does not wait for the client.
	heldBack = 2 << 10
	// freeWrite is the size of a write that is not counted against the memory
	// budget: net/http has buffers of this size.
	freeWrite = 4 << 10
)

// responseWriter records a response. It delays the status until the first byte
// of the body, counts the bytes that wait for the client against the memory
// budget, and closes the connection of a client that does not take them.
type responseWriter struct {
	http.ResponseWriter
	request  *http.Request
	version  string                   // of the API; empty: the newest
	secret   bool                     // the answer to GET holds secrets, see writeWhole
	control  *http.ResponseController // of the ResponseWriter
	memory   *ratelimit.Reservation   // of the memory budget
	client   ratelimit.Key            // the memory's owner when the request has read no store's database
	stall    time.Duration            // stallTimeout, except in tests
	deadline time.Time                // for the whole response

	draining <-chan struct{} // after it is closed, each response closes its connection

	held    heldAnswer // of a call whose answer is kept, see keepAnswer
	status  int
	bytes   int64
	sent    bool          // the status has been sent
	refused bool          // the memory budget had no room for the body, which was dropped
	cut     bool          // the client did not take the response in time
	untaken bool          // a part of the body is still counted: the client did not take it
	taken   int           // bytes of the current stallBytes
	waited  time.Duration // for these bytes
}

// WriteHeader records the status. It is sent with the first byte of the body or
// by finish, so that a body which cannot be encoded can be replaced by an error.
func (w *responseWriter) WriteHeader(status int) {
	if status < http.StatusOK {
		w.ResponseWriter.WriteHeader(status)
	} else if w.status == 0 {
		w.status = status
		if status == http.StatusNoContent {
			w.Header().Del("Content-Type") // huma sets it for every response
		}
	}
}

func (w *responseWriter) sendStatus() {
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

// Write sends b, which counts against the memory budget until the client has
// taken it. When the budget has no room, nothing is sent and refused is set.
func (w *responseWriter) Write(b []byte) (int, error) {
	if w.refused || len(b) == 0 {
		return len(b), nil
	}
	if w.held.limit > 0 {
		if taken, err := w.takeHeld(b); taken || err != nil {
			return len(b), err
		}
	}
	if n := int64(len(b)); n > freeWrite {
		k := w.memoryKey()
		if !w.memory.Take(k, n) {
			if w.sent {
				panic(http.ErrAbortHandler) // the client must not take a part of the response for the whole
			}
			w.refused = true
			return len(b), nil
		}
		defer func() {
			if !w.untaken {
				w.memory.Give(k, n)
			}
		}()
	}
	w.sendStatus()
	written := 0
	for len(b) > 0 {
		n, err := w.send(b[:min(len(b), stallBytes-w.taken)])
		written += n
		if err != nil {
			w.untaken = true
			return written, err
		}
		b = b[n:]
	}
	return written, nil
}

// memoryKey returns the owner of the response's memory: the store whose database
// the request has read, or else the client.
func (w *responseWriter) memoryKey() ratelimit.Key {
	if k, ok := w.memory.Key(); ok {
		return k
	}
	return w.client
}

func (w *responseWriter) send(b []byte) (n int, err error) {
	if w.bytes+int64(len(b)) <= heldBack {
		n, err = w.ResponseWriter.Write(b)
	} else {
		err = w.await(func() (err error) {
			n, err = w.ResponseWriter.Write(b)
			return err
		})
	}
	w.bytes += int64(n)
	if w.taken += n; w.taken >= stallBytes {
		w.taken, w.waited = 0, 0
	}
	return n, err
}

// await runs op, which may wait for the client, for at most the time that the
// client has left.
func (w *responseWriter) await(op func() error) error {
	begin := time.Now()
	w.setDeadline(begin)
	err := op()
	w.waited += time.Since(begin)
	w.cut = w.cut || errors.Is(err, os.ErrDeadlineExceeded)
	return err
}

func (w *responseWriter) setDeadline(now time.Time) {
	deadline := now.Add(w.stall - w.waited)
	if w.deadline.Before(deadline) {
		deadline = w.deadline
	}
	_ = w.control.SetWriteDeadline(deadline) // a writer without a connection has none
}

// FlushError sends the buffered bytes of the response. http.ResponseController calls
// it.
func (w *responseWriter) FlushError() error {
	w.sendStatus()
	return w.await(w.control.Flush)
}

// finish sends the status of a response without a body. The server sends what
// is still in its buffers after the handler has returned.
func (w *responseWriter) finish() {
	if w.status != 0 {
		w.sendStatus()
	}
	w.setDeadline(time.Now())
}

// releaseMemory returns the memory of the response to the budget. A response that
// the client did not take stays counted for as long as the client might have waited.
// Otherwise clients that ask and leave could cause more work than those that wait.
func (w *responseWriter) releaseMemory() {
	if left := w.stall - w.waited; w.untaken && left > 0 {
		w.memory.ReleaseAfter(left)
		return
	}
	w.memory.Release()
}

// reset discards a response of which nothing was sent, with the headers that
// describe its body.
func (w *responseWriter) reset() {
	w.status, w.refused = 0, false
	for _, name := range []string{"Content-Type", "Content-Length", "Content-Disposition", "Content-Encoding", "ETag", "Last-Modified", "Location", "Set-Cookie"} {
		w.Header().Del(name)
	}
}

// Unwrap lets http.ResponseController reach the connection.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// errNoMemory returns the error of a request whose response exceeds the memory budget.
func errNoMemory() error {
	e := stoa.Errorf(stoa.TenantUnavailable, "Too many answers wait for their readers at the moment. Try again shortly.")
	e.RetryAfter = memoryRetryAfter
	return e
}

const memoryRetryAfter = 5 * time.Second
