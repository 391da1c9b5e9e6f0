package tracing

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Sampler decides which traces are recorded: a share of those that begin here. A trace that
// a client began is sampled by that share as well; only a trusted proxy, or a job's own
// request, decides for us. It implements sdktrace.Sampler.
type Sampler struct {
	root sdktrace.Sampler
	// parentBased: a trusted parent decides.
	parentBased bool
}

// Samplers are the names of OTEL_TRACES_SAMPLER.
var Samplers = []string{"always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"}

// These are the errors of ParseSampler, one for each of its arguments.
var (
	ErrSamplerName  = fmt.Errorf("must be one of %s", strings.Join(Samplers, ", "))
	ErrSamplerShare = errors.New("must be a number from 0 to 1, such as 0.01")
)

// ParseSampler reads OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG. It returns
// ErrSamplerName or ErrSamplerShare.
func ParseSampler(name, arg string) (Sampler, error) {
	kind, parentBased := strings.CutPrefix(name, "parentbased_")
	s := Sampler{parentBased: parentBased}
	switch kind {
	case "always_on":
		s.root = sdktrace.AlwaysSample()
	case "always_off":
		s.root = sdktrace.NeverSample()
	case "traceidratio":
		ratio := 1.0
		if arg != "" {
			var err error
			if ratio, err = strconv.ParseFloat(arg, 64); err != nil || !(ratio >= 0 && ratio <= 1) {
				return s, ErrSamplerShare
			}
		}
		s.root = sdktrace.TraceIDRatioBased(ratio)
	default:
		return s, ErrSamplerName
	}
	return s, nil
}

type trustedKey struct{}

// trusting marks ctx: its remote parent decides whether the trace is recorded.
func trusting(ctx context.Context) context.Context { return context.WithValue(ctx, trustedKey{}, true) }

// ShouldSample implements sdktrace.Sampler.
func (s Sampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	parent := trace.SpanContextFromContext(p.ParentContext)
	if !parent.IsValid() {
		return s.root.ShouldSample(p)
	}
	ours := !parent.IsRemote() || s.parentBased && p.ParentContext.Value(trustedKey{}) != nil
	if ours {
		decision := sdktrace.Drop
		if parent.IsSampled() {
			decision = sdktrace.RecordAndSample
		}
		return sdktrace.SamplingResult{Decision: decision}
	}
	// The share is decided by the trace id. This one is a stranger's, who could choose ids that
	// are always taken.
	_, _ = rand.Read(p.TraceID[:]) // never fails
	return s.root.ShouldSample(p)
}

// Description implements sdktrace.Sampler.
func (s Sampler) Description() string { return "stoa:" + s.root.Description() }
