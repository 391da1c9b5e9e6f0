package payments

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/stripe/stripe-go/v86"

	"github.com/stoahq/stoa"
)

// outcome classifies an error of a call to Stripe for the caller.
type outcome int

const (
	// retryable: there was no answer, or a later call may get another one: a timeout, a
	// conflict (409), too many requests (429), a failure of Stripe (5xx).
	retryable outcome = iota
	// keyRefused: Stripe does not accept the API key (401), or the key lacks a permission
	// (403). Only the operator can change that.
	keyRefused
	// final: Stripe refused the request itself and will refuse it again.
	final
)

// outcomeOf classifies an error by Stripe's HTTP status:
// https://docs.stripe.com/api/errors. An answer that is not Stripe's, such as a
// proxy's page, is retryable.
func outcomeOf(err error) outcome {
	e, ok := errors.AsType[*stripe.Error](err)
	if !ok {
		return retryable
	}
	switch status := e.HTTPStatusCode; {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return keyRefused
	case status == http.StatusConflict, status == http.StatusTooManyRequests:
		return retryable
	case status >= http.StatusBadRequest && status < http.StatusInternalServerError:
		return final
	}
	return retryable
}

// isUnauthorized reports whether Stripe does not accept the API key at all, so that every
// other call fails too.
func isUnauthorized(err error) bool {
	e, ok := errors.AsType[*stripe.Error](err)
	return ok && e.HTTPStatusCode == http.StatusUnauthorized
}

// explained replaces the text of Stripe's errors about the key by one for the
// operator. It returns every other error unchanged.
func explained(err error) error {
	e, ok := errors.AsType[*stripe.Error](err)
	if _, done := errors.AsType[*keyError](err); done || !ok || outcomeOf(err) != keyRefused {
		return err
	}
	what := "the key is not accepted by Stripe"
	if e.HTTPStatusCode == http.StatusForbidden {
		what = "the key lacks a right at Stripe"
	}
	text := fmt.Sprintf("%s (status %d, request %s): correct the Stripe key", what, e.HTTPStatusCode, e.RequestID)
	return &keyError{text: text, cause: err}
}

// keyError hides Stripe's own text, which contains a part of the key.
type keyError struct {
	text  string
	cause error
}

func (e *keyError) Error() string { return e.text }
func (e *keyError) Unwrap() error { return e.cause }

// summary describes an error of Stripe without its free text.
func summary(e *stripe.Error) string {
	text := string(e.Type)
	if e.Code != "" {
		text += ", " + string(e.Code)
	}
	if e.Param != "" {
		text += ", parameter " + e.Param
	}
	return fmt.Sprintf("%s, status %d, request %s", text, e.HTTPStatusCode, e.RequestID)
}

// callError returns the error for a caller whose request made a call to Stripe
// that failed with err. Refused calls are logged, since only the operator can
// correct them.
func (s *Service) callError(ctx context.Context, call string, err error) error {
	e, _ := errors.AsType[*stripe.Error](err)
	switch outcomeOf(err) {
	case keyRefused:
		err = explained(err)
		s.cfg.Log.ErrorContext(ctx, "Stripe refuses the key", "call", call, "error", err)
		return stoa.Errorf(stoa.PaymentsUnavailable,
			"The payment provider does not accept this platform's key. Nothing was charged, and sending the request again does not help. Ask the platform's operator.").WithCause(err)
	case final:
		s.cfg.Log.ErrorContext(ctx, "Stripe refused a request", "call", call, "type", e.Type, "code", e.Code, "param", e.Param,
			"status", e.HTTPStatusCode, "request", e.RequestID, "message", e.Msg)
		return stoa.Errorf(stoa.PaymentRefused,
			"The payment provider refused this request (%s). Nothing was charged, and sending it again does not help. Ask the platform's operator.", summary(e)).WithCause(err)
	default:
		return errProvider(err)
	}
}

// errProvider returns the error for a call that Stripe did not answer.
func errProvider(err error) error {
	out := stoa.Errorf(stoa.PaymentsUnavailable,
		"The payment provider cannot be reached at the moment. Nothing was charged. Send the same request with the same Idempotency-Key again.").WithCause(err)
	out.RetryAfter = 5 * time.Second
	return out
}

// lookupError converts the error of a job's look-up of id. An object that Stripe does not
// have or refuses to show gets errRefused, since a later attempt gets the same answer.
func lookupError(err error, id string) error {
	e, ok := errors.AsType[*stripe.Error](err)
	switch {
	case !ok || outcomeOf(err) != final:
		return err
	case e.Code == stripe.ErrorCodeResourceMissing:
		return refuse("Stripe does not know %s: it belongs to another account, or to its other mode", id)
	}
	return refuse("Stripe refuses to tell of %s: %s", id, summary(e))
}

// isReplayed reports whether Stripe has returned the answer stored under the idempotency
// key. Stripe stores its own failures too, for 24 hours.
func isReplayed(e *stripe.Error) bool {
	return e.LastResponse != nil && e.LastResponse.Header.Get("Idempotent-Replayed") == "true"
}

// needsNewKey reports whether Stripe returns the same failure under this idempotency key
// for a day.
func needsNewKey(err error) bool {
	e, ok := errors.AsType[*stripe.Error](err)
	return ok && (e.Type == stripe.ErrorTypeIdempotency && e.HTTPStatusCode == http.StatusBadRequest ||
		e.HTTPStatusCode >= http.StatusInternalServerError && isReplayed(e))
}

// maxAttempts is the number of idempotency keys that a call tries.
const maxAttempts = 3

// errKeptFailures returns the error of a call whose every attempt received a failure that
// Stripe has stored.
func errKeptFailures() error {
	return errProvider(errors.New("every attempt met a failure that Stripe has kept"))
}

// withFreshKeys makes a call under the idempotency keys base, base:2 and base:3 until
// Stripe answers with anything but a stored failure. The keys are the same for each
// request, so that a repeated request finds what was created.
func withFreshKeys[T any](base string, call func(key string) (T, error)) (out T, err error) {
	for attempt := 1; attempt <= maxAttempts; attempt++ {
		key := base
		if attempt > 1 {
			key = fmt.Sprintf("%s:%d", base, attempt)
		}
		if out, err = call(key); !needsNewKey(err) {
			return out, err
		}
	}
	return out, err
}

// jobFailed logs why a job of this package failed and returns the error. The
// queue then retries the job. A refused key is an error, since it needs
// the operator. Cancellation at the end of the process is not a failure.
func (s *Service) jobFailed(ctx context.Context, job interface{ Kind() string }, err error) error {
	if err == nil || errors.Is(context.Cause(ctx), context.Canceled) {
		return err
	}
	level := slog.LevelWarn
	if outcomeOf(err) == keyRefused {
		level = slog.LevelError
	}
	err = explained(err)
	s.cfg.Log.Log(ctx, level, "a payment job failed and is retried", "job", job.Kind(), "error", err)
	return err
}
