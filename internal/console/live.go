package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
)

const (
	liveLifetime  = 10 * time.Minute // then the browser connects again and is authorized again
	liveHeartbeat = 15 * time.Second // proxies close a connection that is idle for long
	// livePoll is how often a live part is read when nothing wakes it.
	livePoll  = time.Second
	liveWrite = 20 * time.Second // a client that reads nothing for this long has gone
)

// livePart reads a part of a page. done says that it will not change any more.
type livePart func(context.Context) (part templ.Component, done bool, err error)

// serveLive sends a part of a page by server-sent events, as ui.Live expects it: once
// at first and again whenever it has changed. woken wakes it early; it may be nil. The
// id of an event is a hash of what was sent, so that a browser which connects again is
// sent only what it has not. The session is checked before each reading.
func (c *Console) serveLive(w http.ResponseWriter, r *Request, woken <-chan struct{}, read livePart) error {
	ctx, cancel := context.WithTimeout(r.Context(), liveLifetime)
	defer cancel()
	l := &live{control: http.NewResponseController(w), w: w, sent: r.Header.Get("Last-Event-ID")}
	// The first reading precedes the answer's status, which may be an error.
	html, done, err := renderPart(ctx, read)
	if err != nil {
		return err
	}
	_ = l.control.SetReadDeadline(time.Time{}) // the request's deadline would end the connection
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would buffer events
	w.WriteHeader(http.StatusOK)
	poll, heartbeat := time.NewTicker(livePoll), time.NewTicker(liveHeartbeat)
	defer poll.Stop()
	defer heartbeat.Stop()
	for {
		if l.send(html) != nil {
			return nil // the client has gone
		}
		if done {
			_ = l.write("event: done\ndata: done\n\n")
			return nil
		}
		if !c.waitLive(ctx, l, woken, poll.C, heartbeat.C) {
			return nil
		}
		if err := c.stillAllowed(ctx, r); err != nil {
			return nil //nolint:nilerr // the browser connects again and receives the error
		}
		if html, done, err = renderPart(ctx, read); err != nil {
			var known *stoa.Error
			if !errors.As(err, &known) && ctx.Err() == nil {
				c.Log.WarnContext(ctx, "live page ended early", "path", r.URL.Path, "err", err)
			}
			return nil
		}
	}
}

// waitLive returns true when it is time to read again, and false when the answer is to
// end.
func (c *Console) waitLive(ctx context.Context, l *live, woken <-chan struct{}, poll, heartbeat <-chan time.Time) bool {
	for {
		select {
		case <-woken:
			return true
		case <-poll:
			return true
		case <-heartbeat:
			if l.write(": still here\n\n") != nil {
				return false
			}
		case <-c.Stopping:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// stillAllowed fails when the session has ended since the request began.
func (c *Console) stillAllowed(ctx context.Context, r *Request) error {
	_, err := c.Accounts.AuthenticateCookie(ctx, keyring.NewSecret(r.Cookie), r.Client)
	return err
}

func renderPart(ctx context.Context, read livePart) (html []byte, done bool, err error) {
	part, done, err := read(ctx)
	if err != nil {
		return nil, false, err
	}
	var b bytes.Buffer
	err = part.Render(ctx, &b)
	return b.Bytes(), done, err
}

// live is the connection of one live part.
type live struct {
	control *http.ResponseController
	w       io.Writer
	sent    string // the id of the last event
}

// send sends the part unless it is what was sent last.
func (l *live) send(html []byte) error {
	sum := sha256.Sum256(html)
	id := hex.EncodeToString(sum[:12])
	if id == l.sent {
		return nil
	}
	l.sent = id
	text := strings.ReplaceAll(strings.ReplaceAll(string(html), "\r\n", "\n"), "\r", "\n")
	return l.write("id: " + id + "\ndata: " + strings.ReplaceAll(text, "\n", "\ndata: ") + "\n\n")
}

func (l *live) write(text string) error {
	_ = l.control.SetWriteDeadline(time.Now().Add(liveWrite))
	if _, err := io.WriteString(l.w, text); err != nil {
		return err
	}
	return l.control.Flush()
}
