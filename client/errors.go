package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// longestProblem is how many bytes of an answer that is an error are read.
const longestProblem = 1 << 20

// Error says that the API refused a call. Its Code is empty if the answer did not come from the
// API but, for example, from a proxy.
type Error struct {
	Problem
	RetryAfter time.Duration // when to try again; 0 if the answer does not say
}

// Error implements error.
func (e *Error) Error() string {
	text := fmt.Sprintf("stoa: %s: %s", e.Code, e.Detail)
	if e.Code == "" {
		text = "stoa: " + e.Detail
	}
	for _, f := range e.Errors {
		text += fmt.Sprintf(" (%s: %s)", f.Field, f.Message)
	}
	if e.RequestID != "" {
		text += " [request " + e.RequestID + "]"
	}
	return text
}

// HasCode reports whether an error is an Error with one of the codes.
func HasCode(err error, codes ...ProblemCode) bool {
	var e *Error
	return errors.As(err, &e) && slices.Contains(codes, e.Code)
}

// readError returns the error of an answer.
func readError(response *http.Response) error {
	e := &Error{}
	text, err := io.ReadAll(io.LimitReader(response.Body, longestProblem))
	if err != nil || json.Unmarshal(text, &e.Problem) != nil || e.Code == "" {
		e.Problem = Problem{Title: http.StatusText(response.StatusCode), Detail: "The answer is " + response.Status + " and does not come from the API."}
		if to := response.Header.Get("Location"); response.StatusCode < http.StatusBadRequest && to != "" {
			e.Detail = fmt.Sprintf("The address is redirected to %q. Use the platform's own address.", to)
		}
	}
	e.Status = int64(response.StatusCode)
	e.RetryAfter = retryAfter(response.Header.Get("Retry-After"), time.Now())
	return e
}

// retryAfter parses the header Retry-After, which has seconds or a time.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil {
		return time.Duration(max(seconds, 0)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
