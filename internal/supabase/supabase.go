// Package supabase is a client for Supabase's Management API, for an application that the
// owner of an account has authorized by OAuth 2. It contains nothing specific to stores.
// Every error is a *stoa.Error, and wraps an *Answer when Supabase has answered.
package supabase

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
)

// DefaultURL is the address of the Management API.
const DefaultURL = "https://api.supabase.com"

// Options configure a Client.
type Options struct {
	URL          string // DefaultURL when empty
	ClientID     string
	ClientSecret keyring.Secret
}

// Client makes calls. It is safe for concurrent use. It repeats no call: most calls
// are not idempotent.
type Client struct {
	base   string
	id     string
	secret keyring.Secret
	http   *http.Client
	limit  rateLimit
}

// callTimeout bounds one call, including the body of the answer.
const callTimeout = 15 * time.Second

// New returns a client. It makes no call.
func New(opts Options) *Client {
	if opts.URL == "" {
		opts.URL = DefaultURL
	}
	return &Client{
		base: strings.TrimRight(opts.URL, "/"), id: opts.ClientID, secret: opts.ClientSecret,
		http: &http.Client{
			Timeout: callTimeout,
			// A redirect would send the token to another host.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Answer is an error answer of Supabase. Its message may quote the request: it must
// not be logged.
type Answer struct {
	Status  int
	Code    string // an OAuth error code, or the SQLSTATE of a query; often ""
	message string
}

func (a *Answer) Error() string {
	return strings.TrimSpace(fmt.Sprintf("supabase answered %d %s", a.Status, a.Code))
}

// StatusOf returns the HTTP status of the answer that err wraps, or 0 if err wraps none.
func StatusOf(err error) int {
	var a *Answer
	if errors.As(err, &a) {
		return a.Status
	}
	return 0
}

// SQLStateOf returns the SQLSTATE of the query that failed with err, or "" when the
// query has not reached the database.
func SQLStateOf(err error) string {
	var a *Answer
	if errors.As(err, &a) {
		return a.Code
	}
	return ""
}

// call is one request.
type call struct {
	method, path string
	project      bool // the path names one project
	query        url.Values
	token        keyring.Secret // of the owner; zero: none is sent
	json         any            // the body, unless form is set
	form         url.Values     // the body, sent with the client's own credentials
	quiet        bool           // the message of an error is never shown: it may quote the body
}

// maxAnswer bounds an answer, in bytes, far above any expected one. A longer answer
// is truncated and fails to parse.
const maxAnswer = 4 << 20

// do makes the call and decodes a successful answer into out, unless out is nil. It
// accepts unknown fields and any 2xx status.
func (c *Client) do(ctx context.Context, what call, out any) error {
	if wait := c.limit.wait(time.Now()); wait > 0 && what.form == nil {
		return limited(wait)
	}
	req, err := c.request(ctx, what)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return unavailable(withoutURL(err))
	}
	defer res.Body.Close()
	wait := c.limit.note(res, time.Now())
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	switch {
	case err != nil:
		return unavailable(withoutURL(err))
	case res.StatusCode == http.StatusTooManyRequests:
		return limited(wait)
	case res.StatusCode/100 != 2:
		return refused(what, res.StatusCode, body)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return unavailable(errors.New("an answer that cannot be read")) // the cause would quote it
	}
	return nil
}

func (c *Client) request(ctx context.Context, what call) (*http.Request, error) {
	var body []byte
	kind := "application/json"
	switch {
	case what.form != nil:
		body, kind = []byte(what.form.Encode()), "application/x-www-form-urlencoded"
	case what.json != nil:
		var err error
		if body, err = json.Marshal(what.json); err != nil {
			return nil, err
		}
	}
	target := c.base + what.path
	if len(what.query) > 0 {
		target += "?" + what.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, what.method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "stoa/"+stoa.Version)
	if len(body) > 0 {
		req.Header.Set("Content-Type", kind)
	}
	switch {
	case what.form != nil:
		req.SetBasicAuth(c.id, c.secret.Reveal())
	case !what.token.IsZero():
		req.Header.Set("Authorization", "Bearer "+what.token.Reveal())
	}
	return req, nil
}

// withoutURL returns the error without the URL that net/http adds: it may contain
// secrets.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

func unavailable(cause error) error {
	return stoa.Errorf(stoa.SupabaseUnavailable, "Supabase does not answer at the moment. Try again shortly.").WithCause(cause)
}

// refused returns the error for an answer with an error status. The message of a failed
// query is never shown. The messages of other calls are Supabase's advice to the owner.
func refused(what call, status int, body []byte) error {
	var said struct {
		Message string
		Error   any // a code at the token endpoint, else the reason phrase of the status
	}
	_ = json.Unmarshal(body, &said) // a proxy may answer with an HTML page
	a := &Answer{Status: status, message: said.Message}
	if what.form != nil {
		a.Code = oauthCode(said.Error)
	}
	if what.quiet {
		a.Code, a.message = sqlState(said.Message), ""
	}
	switch {
	case status >= http.StatusInternalServerError:
		return unavailable(a)
	case status == http.StatusUnauthorized && what.form != nil:
		return stoa.Errorf(stoa.SupabaseUnavailable, "Supabase does not accept this platform's own credentials. Tell the operator.").WithCause(a)
	case status == http.StatusUnauthorized:
		return stoa.Errorf(stoa.SupabaseReconnect, "Supabase no longer accepts this connection. Connect Supabase again.").WithCause(a)
	case status == http.StatusNotFound && what.project:
		return stoa.Errorf(stoa.SupabaseProjectRemoved, "The Supabase project has been removed, or the connected account does not see it any more.").WithCause(a)
	case status == http.StatusForbidden:
		advice := "The connection to Supabase lacks a right that this needs. Connect again as somebody who administers the organisation."
		if text := printable(a.message); text != "" {
			advice += " Supabase says: " + text
		}
		return stoa.Errorf(stoa.SupabaseRefused, "%s", advice).WithCause(a)
	}
	advice := "Supabase refuses this."
	if text := printable(a.message); text != "" {
		advice = "Supabase refuses this and says: " + text
	}
	return stoa.Errorf(stoa.SupabaseRefused, "%s", advice).WithCause(a)
}

// printable shortens a message of Supabase and puts it on one line.
func printable(s string) string {
	const most = 300
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || !unicode.IsPrint(r) }), " ")
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}

// withoutSecret drops the message of an answer that quotes the secret.
func withoutSecret(err error, secret keyring.Secret) error {
	var a *Answer
	if errors.As(err, &a) && strings.Contains(a.message, secret.Reveal()) {
		return stoa.Errorf(stoa.CodeOf(err), "Supabase refuses this.").WithCause(&Answer{Status: a.Status})
	}
	return err
}
