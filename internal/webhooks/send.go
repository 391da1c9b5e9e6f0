package webhooks

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tracing"
)

const (
	maxAnswer     = 4 << 10  // bytes of an answer's body that are read and kept
	maxHeaders    = 16 << 10 // bytes of an answer's headers
	maxRetryAfter = 24 * time.Hour
	// stopGrace is how long attempts may go on when the process stops.
	stopGrace = 2 * time.Second
)

// newClient returns the client that calls endpoints. It follows no redirect, decompresses
// nothing, keeps no cookie and uses no proxy: the dialer decides on the address it reaches.
func newClient(d dial.Dialer, timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return dialEndpoint(ctx, d, network, address)
			},
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeaders,
			MaxIdleConns:           128,
			MaxIdleConnsPerHost:    inFlight,
			MaxConnsPerHost:        4 * inFlight,
			IdleConnTimeout:        30 * time.Second,
			TLSHandshakeTimeout:    timeout,
			TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{}, // HTTP/1.1 only: its bounds are simpler
		},
	}
}

// plaintextKey marks the context of a call by http.
type plaintextKey struct{}

func dialEndpoint(ctx context.Context, d dial.Dialer, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	plaintext := ctx.Value(plaintextKey{}) != nil
	return d.For(dial.Target{Host: host, Plaintext: plaintext})(ctx, network, address)
}

// result is the outcome of one attempt.
type result struct {
	at         time.Time
	took       time.Duration
	status     int    // 0: there was no answer
	fault      string // "": the endpoint accepted the event
	answer     string // the beginning of its body
	endpoint   bool   // the fault is the endpoint's, not one with this event
	gone       bool   // the endpoint asks for no more events
	final      bool   // the delivery is not repeated
	retryAfter time.Duration
}

// deliver makes one attempt to send an event. It returns nil when the process stops before
// the outcome is known.
func (s *Service) deliver(ctx context.Context, url string, secrets []string, e events.Event) *result {
	if s.opts.Tracer == nil {
		return s.attempt(ctx, url, secrets, e)
	}
	// The endpoint's address is not recorded: its path may be a secret.
	ctx, span := s.opts.Tracer.Call(ctx, "webhook delivery", attribute.String("stoa.event.type", string(e.Type)), attribute.String("stoa.event.id", e.ID.String()))
	r := s.attempt(ctx, url, secrets, e)
	if r != nil && r.fault != "" {
		span.SetStatus(codes.Error, r.outcome())
	}
	status := 0
	if r != nil {
		status = r.status
	}
	tracing.Answered(span, status, nil)
	return r
}

func (s *Service) attempt(ctx context.Context, url string, secrets []string, e events.Event) *result {
	if ctx.Err() != nil {
		return nil
	}
	began := time.Now()
	r := &result{at: s.db.Now()}
	call, cancel := withGrace(ctx)
	defer cancel()
	req, err := NewRequest(call, url, secrets, e, r.at)
	if err == nil {
		var answer *http.Response
		if answer, err = s.client.Do(req); err == nil {
			r.read(answer)
		}
	}
	r.took = time.Since(began)
	if err != nil {
		if call.Err() != nil {
			return nil
		}
		r.fault, r.endpoint = faultText(err), true
	}
	s.metrics.attempts.WithLabelValues(r.outcome()).Inc()
	return r
}

// withGrace returns a context that ends stopGrace after ctx.
func withGrace(ctx context.Context) (context.Context, context.CancelFunc) {
	call, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(stopGrace):
			cancel()
		case <-call.Done():
		}
	})
	return call, func() { stop(); cancel() }
}

// NewRequest returns the signed request for an event.
func NewRequest(ctx context.Context, url string, secrets []string, e events.Event, now time.Time) (*http.Request, error) {
	body, err := e.JSON()
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(strings.ToLower(url), "http:") {
		ctx = context.WithValue(ctx, plaintextKey{}, true)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	signatures, err := Sign(secrets, e.ID.String(), now, body)
	if err != nil {
		return nil, err
	}
	req.Header = Headers(e.ID, now)
	req.Header.Set(standardwebhooks.HeaderWebhookSignature, signatures)
	return req, nil
}

// Headers returns the headers of an attempt that was made at a time, without the signature,
// which is not kept.
func Headers(id stoa.EventID, at time.Time) http.Header {
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", "Stoa-Webhooks/"+stoa.Version)
	h.Set(standardwebhooks.HeaderWebhookID, id.String())
	h.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10))
	return h
}

// Sign returns the value of the header webhook-signature: one signature for each secret.
func Sign(secrets []string, id string, at time.Time, body []byte) (string, error) {
	var signatures []string
	for _, secret := range secrets {
		w, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			return "", err
		}
		signature, err := w.Sign(id, at, body)
		if err != nil {
			return "", err
		}
		signatures = append(signatures, signature)
	}
	return strings.Join(signatures, " "), nil
}

// read reads what is kept of an answer. A connection with more than that is closed.
func (r *result) read(answer *http.Response) {
	defer answer.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(answer.Body, maxAnswer)) // the status decides, whatever becomes of the rest
	r.status, r.answer = answer.StatusCode, plain(body)
	switch {
	case r.status >= 200 && r.status < 300:
	case r.status == http.StatusGone:
		r.fault, r.gone, r.final, r.endpoint = "The endpoint is gone (410).", true, true, true
	case r.status >= 300 && r.status < 400:
		r.fault, r.endpoint = fmt.Sprintf("The endpoint answered with a redirect (%d), which is not followed.", r.status), true
	default:
		r.fault, r.endpoint = fmt.Sprintf("The endpoint answered %d.", r.status), !aboutEvent(r.status)
		r.retryAfter = retryAfter(answer.Header.Get("Retry-After"), r.at)
	}
}

// aboutEvent reports whether a status tells of this event, not of the whole endpoint.
func aboutEvent(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// retryAfter returns how long the header Retry-After asks to wait, at most a day; 0: it does
// not.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

// plain returns bytes of an endpoint as text that can be stored.
func plain(b []byte) string {
	for i := 0; i < utf8.UTFMax && len(b) > 0 && !utf8.Valid(b); i++ {
		b = b[:len(b)-1] // a character that was cut
	}
	return strings.ReplaceAll(strings.ToValidUTF8(string(b), "�"), "\x00", "�")
}

// faultText says why there was no answer, in words that reveal nothing of an internal network.
func faultText(err error) string {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, dial.ErrHostForbidden), errors.Is(err, dial.ErrUnknownHost):
		return "The name does not lead to an address that may be reached. Endpoints in private networks have to be allowed by the operator."
	case errors.Is(err, dial.ErrPlaintextForbidden):
		return "An endpoint at a public address has to use https."
	case errors.As(err, &certificate), errors.As(err, &unknown):
		return "The certificate of the endpoint is not valid."
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return "The endpoint does not speak TLS at this port."
	case errors.As(err, &timeout) && timeout.Timeout():
		return "The endpoint did not answer in time."
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "The endpoint closed the connection without an answer."
	}
	return "The endpoint cannot be reached, or its answer is no HTTP."
}
