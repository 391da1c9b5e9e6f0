package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// longestAnswer is how many bytes a JSON answer may have.
const longestAnswer = 32 << 20

// request is one call.
type request struct {
	method  string
	path    string   // with {} for each id
	ids     []string // in the path
	query   any      // a pointer to a struct with form tags, or nil
	body    any      // sent as JSON, or nil
	stream  io.Reader
	keyed   bool // takes an idempotency key
	refresh bool // exchanges the tokens: needs none, and may be repeated within some seconds
}

// optional returns the body b, or nil.
func optional[T any](b *T) any {
	if b == nil {
		return nil
	}
	return b
}

// call makes a call and decodes its answer.
func call[T any](ctx context.Context, c *Client, r request, options []CallOption) (*T, error) {
	var out T
	if err := c.call(ctx, r, &out, options); err != nil {
		return nil, err
	}
	return &out, nil
}

// callOrStart makes a call that answers with its result, or with the work that goes on.
func callOrStart[T, W any](ctx context.Context, c *Client, r request, options []CallOption) (*T, *W, error) {
	answer, err := c.open(ctx, r, false, options)
	if err != nil {
		return nil, nil, err
	}
	if answer.status == http.StatusAccepted {
		var work W
		return nil, &work, answer.decode(&work)
	}
	var result T
	return &result, nil, answer.decode(&result)
}

// call makes a call and decodes its answer into out, unless that is nil.
func (c *Client) call(ctx context.Context, r request, out any, options []CallOption) error {
	answer, err := c.open(ctx, r, false, options)
	if err != nil || out == nil {
		return err
	}
	return answer.decode(out)
}

// stream makes a call and returns its answer, whose body the caller must close.
func (c *Client) stream(ctx context.Context, r request, options []CallOption) (*http.Response, error) {
	answer, err := c.open(ctx, r, true, options)
	if err != nil {
		return nil, err
	}
	return answer.response, nil
}

// Do makes a call that has no method of its own, for example one with an answer in CSV. The
// path begins with /api and may have a query. The caller must close the answer's body. The body
// that is sent may be nil.
func (c *Client) Do(ctx context.Context, method, path string, body io.Reader, options ...CallOption) (*http.Response, error) {
	return c.stream(ctx, request{method: method, path: path, stream: body}, options)
}

// answer is the answer of a call that succeeded.
type answer struct {
	status   int
	text     []byte         // the whole body
	response *http.Response // of a stream, whose body is open
	call     string
}

func (a answer) decode(out any) error {
	if err := json.Unmarshal(a.text, out); err != nil {
		return fmt.Errorf("stoa: the answer of %s cannot be read: %w", a.call, err)
	}
	return nil
}

// outgoing is a call that is ready to be sent, several times if need be.
type outgoing struct {
	method, url string
	header      http.Header
	text        []byte
	stream      io.Reader
	refresh     bool
	receive     bool // the answer is a stream
	received    *http.Header
}

func (c *Client) prepare(r request, receive bool, options []CallOption) (outgoing, error) {
	address, err := r.address(c.base)
	if err != nil {
		return outgoing{}, err
	}
	o := outgoing{method: r.method, url: address, stream: r.stream, refresh: r.refresh, receive: receive,
		header: http.Header{"Accept": {"application/json"}, "User-Agent": {"stoa-go"}, "Stoa-Version": {Version}}}
	switch {
	case receive:
		o.header.Set("Accept", "*/*")
	case r.keyed:
		o.header.Set("Idempotency-Key", rand.Text())
	}
	switch {
	case r.stream != nil:
		o.header.Set("Content-Type", "application/octet-stream")
	case r.body != nil:
		if o.text, err = json.Marshal(r.body); err != nil {
			return outgoing{}, fmt.Errorf("stoa: the body of %s %s: %w", r.method, r.path, err)
		}
		o.header.Set("Content-Type", "application/json")
	}
	settings := callOptions{header: o.header}
	for _, set := range options {
		set(&settings)
	}
	o.received = settings.received
	return o, nil
}

// address returns the URL of a call.
func (r request) address(base string) (string, error) {
	path := r.path
	for _, id := range r.ids {
		if id == "" || id == "." || id == ".." { // would be the path of another call
			return "", fmt.Errorf("stoa: %q is no id in %s %s", id, r.method, r.path)
		}
		path = strings.Replace(path, "{}", strings.ReplaceAll(url.PathEscape(id), "{", "%7B"), 1)
	}
	if values := encodeQuery(r.query); len(values) > 0 {
		path += "?" + values.Encode()
	}
	return base + path, nil
}

// open makes a call, repeats it where that is safe, and returns the answer.
func (c *Client) open(ctx context.Context, r request, receive bool, options []CallOption) (answer, error) {
	o, err := c.prepare(r, receive, options)
	if err != nil {
		return answer{}, err
	}
	renewed := false
	for attempt := 0; ; attempt++ {
		a, token, err := c.attempt(ctx, o)
		if err == nil {
			a.call = r.method + " " + r.path
			return a, nil
		}
		if !renewed && token != "" && o.stream == nil && HasCode(err, ProblemCodeTokenExpired) {
			renewed = true
			if err := c.auth.renew(ctx, c, token, err); err != nil {
				return answer{}, err
			}
			attempt--
			continue
		}
		if attempt >= c.retries || ctx.Err() != nil || !o.repeatable(err) {
			return answer{}, err
		}
		if err := pause(ctx, attempt, err); err != nil {
			return answer{}, err
		}
	}
}

// attempt sends a call once. token is the access token that it had.
func (c *Client) attempt(ctx context.Context, o outgoing) (a answer, token string, err error) {
	header := o.header.Clone()
	if c.auth != nil && !o.refresh {
		if token, err = c.auth.token(ctx, c); err != nil {
			return answer{}, "", err
		}
		header.Set("Authorization", "Bearer "+token)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(c.timeout, func() { cancel(errTimeout) })
	if o.stream != nil {
		timer.Stop() // an upload may take long
	}
	response, err := c.send(ctx, o, header) //nolint:bodyclose // read closes it, or the caller of a stream
	if err == nil && o.receive && response.StatusCode < http.StatusMultipleChoices {
		timer.Stop()
		response.Body = &closer{ReadCloser: response.Body, cancel: cancel}
		return answer{status: response.StatusCode, response: response}, token, nil
	}
	defer cancel(nil)
	defer timer.Stop()
	if err == nil {
		a, err = read(response)
	}
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errTimeout) {
		err = cause
	}
	return a, token, err
}

var errTimeout = errors.New("stoa: the platform did not answer in time")

func (c *Client) send(ctx context.Context, o outgoing, header http.Header) (*http.Response, error) {
	var body io.Reader = http.NoBody
	switch {
	case o.stream != nil:
		body = o.stream
	case o.text != nil:
		body = bytes.NewReader(o.text)
	}
	request, err := http.NewRequestWithContext(ctx, o.method, o.url, body)
	if err != nil {
		return nil, fmt.Errorf("stoa: %w", err)
	}
	request.Header = header
	response, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("stoa: %w", err)
	}
	if o.received != nil && response.StatusCode < http.StatusMultipleChoices {
		*o.received = response.Header
	}
	return response, nil
}

// read reads the body of an answer and closes it.
func read(response *http.Response) (answer, error) {
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode >= http.StatusMultipleChoices {
		return answer{}, readError(response)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, longestAnswer+1))
	switch {
	case err != nil:
		return answer{}, fmt.Errorf("stoa: the answer ended early: %w", err)
	case len(text) > longestAnswer:
		return answer{}, &Error{Problem: Problem{Status: int64(response.StatusCode), Detail: fmt.Sprintf("The answer is longer than %d MiB.", longestAnswer>>20)}}
	}
	return answer{status: response.StatusCode, text: text}, nil
}

// closer is the body of a stream. Closing it ends the call.
type closer struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

// Close implements io.Closer.
func (c *closer) Close() error {
	defer c.cancel(nil)
	return c.ReadCloser.Close()
}
