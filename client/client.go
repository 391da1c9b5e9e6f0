// Package client is a client of Stoa's HTTP API. Its operations and types are generated from
// the OpenAPI document; the rest adds what each call needs: authentication with refresh,
// idempotency keys, retries, pages and typed errors.
//
//	c, err := client.New("https://stoa.example.com", client.WithAPIKey(key))
//	...
//	spent, err := c.Credits.Spend(ctx, client.SpendRequest{Amount: client.Pointer("1")})
//	if client.HasCode(err, client.ProblemCodeInsufficientCredits) {
//		...
//	}
package client

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	defaultRetries = 3
	defaultTimeout = 2 * time.Minute // of one attempt; connecting a database waits for a minute
)

// Client calls one platform as one caller. It is safe for concurrent use.
type Client struct {
	services

	base    string
	http    *http.Client
	retries int
	timeout time.Duration
	auth    authorizer // nil for calls without authentication
}

// Option configures a Client.
type Option func(*Client)

// WithAPIKey authenticates with an API key of a store, or with an access token that is not to
// be renewed.
func WithAPIKey(key string) Option { return func(c *Client) { c.auth = apiKey(key) } }

// WithTokens authenticates with the tokens of a sign-in, or with a refresh token alone. They
// are exchanged for new ones when they expire, once for all concurrent calls. changed is then
// called with the new ones, one call at a time, to store them; it may be nil.
func WithTokens(t Tokens, changed func(Tokens)) Option {
	return func(c *Client) { c.auth = newSession(t, changed) }
}

// WithHTTPClient sends requests with the HTTP client h. Its Timeout also ends streams: leave
// it 0 and use WithTimeout.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithRetries sets how often a call is repeated that failed for a transient reason: 3 unless
// set, and 0 for never.
func WithRetries(n int) Option { return func(c *Client) { c.retries = n } }

// WithTimeout limits one attempt of a call, and of a stream the time until it begins. It is 2
// minutes unless set. The context limits the call with its retries.
func WithTimeout(d time.Duration) Option { return func(c *Client) { c.timeout = d } }

// New returns a client of the platform at an address such as https://stoa.example.com.
// Without WithAPIKey or WithTokens it makes only calls that need no authentication.
func New(address string, options ...Option) (*Client, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, errors.New("stoa: the address of the platform is no URL")
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "", u.User != nil, u.RawQuery != "", u.Fragment != "":
		return nil, fmt.Errorf("stoa: the address %q is not like https://stoa.example.com", u.Redacted())
	}
	c := &Client{
		base: strings.TrimRight(address, "/"), retries: defaultRetries, timeout: defaultTimeout,
		http: &http.Client{CheckRedirect: refuseRedirect},
	}
	c.services = newServices(c)
	for _, o := range options {
		o(c)
	}
	return c, nil
}

// refuseRedirect makes a redirect an error. The API redirects no call that this client makes;
// an address that does, such as http for https, must be corrected before a secret is sent to it
// again.
func refuseRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// CallOption changes one call.
type CallOption func(*callOptions)

type callOptions struct {
	header   http.Header
	received *http.Header
}

// InStore names the store of a call about credits, for a caller with several stores.
func InStore(id string) CallOption { return WithHeader("X-Store-Id", id) }

// WithIdempotencyKey sends a key that the caller chose. Otherwise each call that takes a key
// has a random one, with which its retries do the work once.
func WithIdempotencyKey(key string) CallOption { return WithHeader("Idempotency-Key", key) }

// IfMatch makes a change only if nobody has changed the resource since the answer that had
// this ETag.
func IfMatch(etag string) CallOption { return WithHeader("If-Match", etag) }

// WithHeader sends a header.
func WithHeader(name, value string) CallOption {
	return func(o *callOptions) { o.header.Set(name, value) }
}

// SaveHeader stores the header of the answer of success, for example its ETag, in h.
func SaveHeader(h *http.Header) CallOption { return func(o *callOptions) { o.received = h } }

// Pointer returns a pointer to a value, for optional members.
func Pointer[T any](v T) *T { return &v }
