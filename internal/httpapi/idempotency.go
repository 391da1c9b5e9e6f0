package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/idempotency"
)

const (
	keyHeader    = "Idempotency-Key"
	replayHeader = "Idempotency-Replayed"
	// keepTimeout limits the keeping of an answer, also when the client has gone.
	keepTimeout = 5 * time.Second
)

// keyUse says what an Idempotency-Key does to a call.
type keyUse string

const (
	keyIgnored keyUse = ""       // the call takes none
	keyKept    keyUse = "kept"   // the answer is kept and given again
	keyLedger  keyUse = "ledger" // the domain stores the key with the credits, for good
)

// keyDescriptions are the descriptions of the header.
var keyDescriptions = map[keyUse]string{
	keyKept: "1 to 255 printable ASCII characters. For 24 hours the same key with the same request gets the first answer again, and nothing is done twice. " +
		"Answers with a status from 500 on and 429 are not kept",
	keyLedger: "1 to 255 printable ASCII characters. The same key with the same request moves credits once, however often and however late it is sent, " +
		"and gets the first answer again. A call that was refused leaves the key free",
}

// documentKey adds the header to an operation.
func documentKey(op *huma.Operation, use keyUse) {
	if use == keyIgnored {
		return
	}
	longest := 255
	op.Parameters = append(op.Parameters, &huma.Param{
		Name: keyHeader, In: "header", Description: keyDescriptions[use], Schema: &huma.Schema{Type: huma.TypeString, MaxLength: &longest},
		Example: "0198f2b4-5a1c-7d3e-8f60-9b1a2c3d4e5f",
	})
}

// readKey checks the request's key, which is empty without one.
func readKey(r *http.Request) (key string, err error) {
	var faults stoa.Invalid
	switch values := r.Header.Values(keyHeader); len(values) {
	case 0:
	case 1:
		key = values[0]
		idempotency.CheckKey(&faults, keyHeader, key)
	default:
		faults.Add(keyHeader, "is given %d times; once is enough", len(values))
	}
	return key, faults.Err()
}

// takeKey returns the middleware of a route that takes a key.
func (a *api) takeKey(o routeOptions) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		r, _ := humago.Unwrap(ctx)
		key, err := readKey(r)
		switch {
		case err != nil:
			a.writeHumaProblem(ctx, err)
		case key == "" || o.key == keyLedger:
			requestIn(r.Context()).key = key
			next(ctx)
		default:
			requestIn(r.Context()).key = key
			a.onceFor(ctx, o, key, next)
		}
	}
}

// ReplayedHeader marks an answer that the ledger has given before. It is exported because
// huma reads only exported embedded structs.
type ReplayedHeader struct {
	Replayed string `header:"Idempotency-Replayed" enum:"true" doc:"true: the answer to an earlier call with this Idempotency-Key, as it was then"`
}

func replayedIf(replayed bool) (h ReplayedHeader) {
	if replayed {
		h.Replayed = "true"
	}
	return h
}

// idempotencyKey returns the key of the request, or "".
func idempotencyKey(ctx context.Context) string { return requestOf(ctx).key }

// onceFor carries out the call, unless the answer to an earlier one with its key is kept.
func (a *api) onceFor(ctx huma.Context, o routeOptions, key string, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	hash, ok := hashRequest(w, r, o.maxBody)
	if !ok {
		next(ctx) // answers why the body cannot be read
		return
	}
	call, kept, err := a.Idempotency.Begin(r.Context(), idempotency.Request{
		Caller: principal(ctx.Context()), Key: key, Hash: hash, Timeout: o.timeout + 2*keepTimeout,
	})
	switch {
	case err != nil:
		a.writeHumaProblem(ctx, err)
	case kept != nil:
		replay(w, *kept)
	default:
		a.keepAnswer(ctx, call, next)
	}
}

// hashRequest returns the hash of what identifies a request, and lets its body be read once
// more. It fails when the body cannot be read or is longer than limit.
func hashRequest(w http.ResponseWriter, r *http.Request, limit int64) (hash string, ok bool) {
	var body []byte
	if limit != noBody {
		setReadDeadline(w, bodyTimeout)
		var err error
		body, err = io.ReadAll(io.LimitReader(r.Body, limit+1))
		r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), afterBody{r.Body, err}))
		if err != nil || int64(len(body)) > limit {
			return "", false
		}
	}
	sum := sha256.New()
	_, _ = fmt.Fprintf(sum, "%s %s\n%q %q\n", r.Method, r.URL.RequestURI(), r.Header.Get("X-Store-Id"), r.Header.Get(versionHeader))
	_, _ = sum.Write(body)
	return hex.EncodeToString(sum.Sum(nil)), true
}

// afterBody continues a body that was read in part.
type afterBody struct {
	rest io.Reader
	err  error // of the reading so far
}

func (b afterBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	return b.rest.Read(p)
}

// keptHeaders are the headers that are kept with an answer.
var keptHeaders = []string{"Content-Type", "ETag", "Location", "Preference-Applied", "Retry-After"}

// replay answers with an earlier answer.
func replay(w http.ResponseWriter, kept idempotency.Answer) {
	for name, value := range kept.Header {
		w.Header().Set(name, value)
	}
	w.Header().Set(replayHeader, "true")
	w.WriteHeader(kept.Status)
	_, _ = w.Write(kept.Body) // the client may have gone
}

// keepAnswer carries out the call and keeps its answer before it is sent. An answer is not
// kept when the call was refused before it began, when a repetition can have another outcome
// (429 and from 500 on), and when it is longer than any answer of something new.
func (a *api) keepAnswer(ctx huma.Context, call *idempotency.Call, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	rw := w.(*responseWriter) //nolint:forcetypeassert // middleware makes it
	rw.hold(idempotency.MaxBody)
	keep := false
	defer func() {
		answer := idempotency.Answer{Status: rw.status, Header: map[string]string{}, Body: rw.held.body}
		for _, name := range keptHeaders {
			if value := w.Header().Get(name); value != "" {
				answer.Header[name] = value
			}
		}
		end, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), keepTimeout)
		defer cancel()
		var err error
		if keep && !rw.held.over {
			err = call.Keep(end, answer)
		} else {
			err = call.Release(end)
		}
		if err != nil {
			a.Log.WarnContext(end, "answer not kept for the repetitions of a call", "request_id", requestID(end), "err", err)
		}
		rw.sendHeld()
	}()
	next(ctx)
	begun := requestIn(r.Context()).begun
	keep = begun && rw.status != http.StatusTooManyRequests && rw.status < http.StatusInternalServerError
}

// heldAnswer is a body that is not sent yet.
type heldAnswer struct {
	limit int
	body  []byte
	over  bool // the body was longer than limit, so it was sent
}

// hold lets the writer hold back a body of at most limit bytes until sendHeld.
func (w *responseWriter) hold(limit int) { w.held = heldAnswer{limit: limit} }

// takeHeld holds back b, or sends what was held back when the body becomes too long.
func (w *responseWriter) takeHeld(b []byte) (taken bool, err error) {
	if len(w.held.body)+len(b) <= w.held.limit {
		w.held.body = append(w.held.body, b...)
		return true, nil
	}
	body := w.held.body
	w.held = heldAnswer{over: true}
	_, err = w.Write(body)
	return false, err
}

// sendHeld sends what was held back.
func (w *responseWriter) sendHeld() {
	body := w.held.body
	w.held = heldAnswer{over: w.held.over}
	if len(body) > 0 {
		_, _ = w.Write(body) // the client may have gone
	}
}
