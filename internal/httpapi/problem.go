package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// Problem is an RFC 9457 problem document.
type Problem struct {
	Type      string         `json:"type" example:"about:blank" doc:"Always about:blank: the code says which problem it is"`
	Title     string         `json:"title" example:"Unprocessable Entity" doc:"The status in words"`
	Status    int            `json:"status" example:"422" doc:"The HTTP status"`
	Detail    string         `json:"detail" doc:"What happened and what to do, for a person"`
	Remedy    string         `json:"remedy" doc:"What helps against problems with this code, for whoever calls the API"`
	Code      stoa.Code      `json:"code" example:"invalid_request" doc:"Stable name of the problem, for programs"`
	RequestID string         `json:"requestId" doc:"Name it when you ask for help"`
	Errors    []ProblemField `json:"errors,omitempty" doc:"What is wrong with which field"`
	Quota     *ProblemQuota  `json:"quota,omitempty" doc:"With quota_exceeded, and with rate_limited when a quota is regained with time: which quota it is"`
	Challenge string         `json:"challengeToken,omitempty" doc:"With second_factor_required only: send it to POST /api/auth/login/second-factor with a code, within 5 minutes"`

	header http.Header
}

// ProblemField is a fault of one field.
type ProblemField struct {
	Field   string `json:"field" example:"email" doc:"JSON path of the field, or the name of the parameter"`
	Message string `json:"message" example:"is required"`
}

// ProblemQuota is the quota that a request would have exceeded.
type ProblemQuota struct {
	Name  string `json:"name" example:"stores" doc:"Stable name of the quota, for programs"`
	Limit int    `json:"limit" example:"3" doc:"How many there may be"`
	Used  int    `json:"used" example:"3" doc:"How many there are"`
}

func (p *Problem) Error() string { return string(p.Code) + ": " + p.Detail }

// GetStatus returns the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders returns Retry-After and WWW-Authenticate where they apply.
func (p *Problem) GetHeaders() http.Header { return p.header }

// ContentType returns the problem document's media type, whatever was negotiated.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// internalMessage is the whole message that a client receives for an unexpected error.
const internalMessage = "Something went wrong on our side. Try again; if it persists, name this request's id."

// problem maps an error to a problem document. An error that is not a *stoa.Error is
// logged with the request's id and not shown.
func (a *api) problem(ctx context.Context, err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	var known *stoa.Error
	switch {
	case errors.As(err, &known):
		if known.Code == stoa.PlatformUnavailable {
			a.logUnavailable.Do(func() {
				a.Log.WarnContext(ctx, "request failed: master database unavailable", "request_id", requestID(ctx), "err", err)
			})
		}
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		known = stoa.Errorf(stoa.PlatformUnavailable, "This took too long, and it is not known whether it was done. Try again in a few seconds.").WithCause(err)
		known.RetryAfter = 5 * time.Second
	default:
		if ctx.Err() == nil {
			a.Log.ErrorContext(ctx, "request failed", "request_id", requestID(ctx), "err", err)
		}
		known = stoa.Errorf(stoa.Internal, "%s", internalMessage)
	}
	if known.Code == stoa.TenantUnavailable && tenantdb.HealthCode(err) == stoa.DatabaseContentInvalid {
		a.Log.WarnContext(ctx, "store database holds unusable content", "request_id", requestID(ctx), "host", requestOf(ctx).host, "err", err)
	}
	status := infos[known.Code].status
	if known.Code == stoa.TenantError && known.RetryAfter > 0 {
		status = http.StatusServiceUnavailable
	}
	p = newProblem(ctx, status, known.Code, known.Message)
	for _, f := range known.Fields {
		p.Errors = append(p.Errors, ProblemField(f))
	}
	if known.Quota != nil {
		p.Quota = &ProblemQuota{Name: known.Quota.Name, Limit: known.Quota.Limit, Used: known.Quota.Used}
	}
	var second *accounts.SecondFactorRequired
	if errors.As(err, &second) {
		p.Challenge = second.Challenge.Reveal()
	}
	if known.RetryAfter > 0 {
		p.header.Set("Retry-After", retryAfter(known.RetryAfter))
	}
	if p.Status == http.StatusUnauthorized {
		challenge := `Bearer realm="stoa"`
		switch known.Code { //nolint:exhaustive // RFC 6750, section 3.1: without a token there is no error
		case stoa.TokenInvalid, stoa.TokenExpired, stoa.SessionRevoked:
			if known != errTokenMissing {
				challenge += `, error="invalid_token"`
			}
		}
		p.header.Set("WWW-Authenticate", challenge)
	}
	return p
}

func newProblem(ctx context.Context, status int, code stoa.Code, detail string) *Problem {
	if status == 0 {
		status = http.StatusInternalServerError
	}
	return &Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status,
		Detail: detail, Remedy: infos[code].plainRemedy(), Code: code, RequestID: requestID(ctx), header: http.Header{},
	}
}

// init sets huma's global error constructors, which make the documents of errors
// that huma finds itself: unreadable bodies and fields that do not fit the schema.
func init() {
	huma.ValidateStrictCasing = true // "Email" is not "email": otherwise a field could be given twice
	// huma puts the name of a missing field only into the message. The separator
	// lets fieldFault extract it.
	validation.MsgExpectedRequiredProperty = "%s" + missingField
	huma.NewError = func(status int, detail string, errs ...error) huma.StatusError {
		return humaProblem(context.Background(), status, detail, errs)
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, detail string, errs ...error) huma.StatusError {
		return humaProblem(ctx.Context(), status, detail, errs)
	}
}

func humaProblem(ctx context.Context, status int, detail string, errs []error) *Problem {
	code := stoa.InvalidRequest
	switch {
	case status == http.StatusRequestEntityTooLarge:
		code, detail = stoa.PayloadTooLarge, "The body is larger than this call accepts (1 MiB)."
	case status >= http.StatusInternalServerError:
		code, detail = stoa.Internal, internalMessage
	case status == http.StatusBadRequest:
		detail = "The body cannot be read as JSON."
	case status == http.StatusUnprocessableEntity:
		detail = "Some fields are not as this call expects them."
	}
	p := newProblem(ctx, status, code, detail)
	for _, err := range errs {
		var d *huma.ErrorDetail
		if errors.As(err, &d) {
			p.Errors = append(p.Errors, fieldFault(d))
		}
	}
	return p
}

// missingField follows the field's name in huma's message about a missing field. No
// field name contains a NUL.
const missingField = "\x00is required"

// fieldFault removes huma's prefix from the field's name: "body.email" → "email". It
// omits the value, which may be a password.
func fieldFault(d *huma.ErrorDetail) ProblemField {
	path, message := d.Location, d.Message
	if name, missing := strings.CutSuffix(message, missingField); missing {
		path, message = path+"."+name, "is required"
	}
	for _, prefix := range []string{"body.", "query.", "header.", "path."} {
		if rest, ok := strings.CutPrefix(path, prefix); ok {
			return ProblemField{Field: rest, Message: message}
		}
	}
	return ProblemField{Field: path, Message: message}
}

// writeProblem writes a problem document outside huma.
func writeProblem(w http.ResponseWriter, p *Problem) {
	for key, values := range p.header {
		w.Header()[key] = values
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may have gone
}
