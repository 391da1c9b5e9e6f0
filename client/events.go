package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"
)

// longestEvent is how many bytes a line of a stream may have.
const longestEvent = 1 << 20

// quiet is how long a connection lasts at least that ends without an event because there was
// none, and not because something is wrong.
const quiet = 10 * time.Second

// errNoEvents says that a stream ended several times without an event.
var errNoEvents = errors.New("stoa: the stream of events ends again and again")

// events yields the events of a stream. It connects again when the stream ends, after the last
// event, until the API says that there are no more or the context ends.
func events[T any](ctx context.Context, c *Client, r request, options []CallOption) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		last := ""
		for fruitless := 0; ; fruitless++ {
			o := append([]CallOption{WithHeader("Accept", "text/event-stream")}, options...)
			if last != "" {
				o = append(o, WithHeader("Last-Event-ID", last))
			}
			response, err := c.stream(ctx, r, o)
			if err == nil && response.StatusCode == http.StatusNoContent {
				_ = response.Body.Close()
				return
			}
			if err == nil {
				var again bool
				begun := time.Now()
				if again, err = yieldEvents(response.Body, yield, &last, &fruitless); !again {
					return
				}
				if time.Since(begun) >= quiet {
					fruitless = -1
				}
			}
			if err == nil && fruitless >= c.retries {
				err = errNoEvents
			}
			if err == nil && fruitless > 0 {
				err = pause(ctx, fruitless, errNoEvents)
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				var none T
				yield(none, err)
				return
			}
		}
	}
}

// yieldEvents yields the events of one connection. It returns whether to connect again.
func yieldEvents[T any](body io.ReadCloser, yield func(T, error) bool, last *string, fruitless *int) (bool, error) {
	defer func() { _ = body.Close() }()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, longestEvent)
	var data []byte
	id := *last
	for lines.Scan() {
		name, value, _ := bytes.Cut(lines.Bytes(), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch {
		case len(lines.Bytes()) == 0:
			if data == nil {
				continue
			}
			var event T
			if err := json.Unmarshal(data, &event); err != nil {
				return true, fmt.Errorf("stoa: an event cannot be read: %w", err)
			}
			data, *last, *fruitless = nil, id, -1
			if !yield(event, nil) {
				return false, nil
			}
		case string(name) == "data":
			if data = append(append(data, value...), '\n'); len(data) > longestEvent {
				return true, errors.New("stoa: an event is too long")
			}
		case string(name) == "id":
			id = string(value)
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return true, errors.New("stoa: an event is too long")
	}
	return true, nil // a connection that breaks off is made again
}
