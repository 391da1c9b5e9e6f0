package httpapi

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
)

func (a *api) healthRoutes() {
	tags := []string{"Operations"}
	route(a, routeOptions{timeout: requestTimeout, rate: rateHealth, scope: scopePublic, maxBody: noBody},
		huma.Operation{Method: http.MethodGet, Path: "/healthz", OperationID: "healthz", Tags: tags,
			Summary: "Is the process alive?"}, a.healthz)
	route(a, routeOptions{timeout: requestTimeout, rate: rateHealth, scope: scopePublic, maxBody: noBody},
		huma.Operation{Method: http.MethodGet, Path: "/readyz", OperationID: "readyz", Tags: tags,
			Summary: "Can it serve? Checks the master database.", Errors: []int{503}}, a.readyz)
}

// readiness keeps what the last look at the master found, so that however many
// ask, it is looked at once a second.
type readiness struct {
	mu     sync.Mutex
	looked time.Time
	err    error
}

const (
	readinessAge     = time.Second
	readinessTimeout = 2 * time.Second
)

// check returns what ping does, or did a moment ago.
func (r *readiness) check(ctx context.Context, ping func(context.Context) error) error {
	r.mu.Lock() // those who come meanwhile wait for the same look
	defer r.mu.Unlock()
	if time.Since(r.looked) < readinessAge {
		return r.err
	}
	// Not under the caller's context, whose end would be everybody's answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readinessTimeout)
	defer cancel()
	r.err = ping(ctx)
	r.looked = time.Now()
	return r.err
}

type healthOutput struct {
	Body struct {
		Status  string `json:"status" enum:"ok"`
		Version string `json:"version,omitempty" doc:"In development only"`
	}
}

func (a *api) healthz(context.Context, *struct{}) (*healthOutput, error) {
	out := &healthOutput{}
	out.Body.Status = "ok"
	if a.Development { // else it is for the private listener to say
		out.Body.Version = stoa.Version
	}
	return out, nil
}

func (a *api) readyz(ctx context.Context, in *struct{}) (*healthOutput, error) {
	if isClosed(a.Draining) {
		return nil, errStopping(ctx)
	}
	if err := a.readiness.check(ctx, a.Master.Ping); err != nil {
		a.Log.WarnContext(ctx, "master database does not answer", "err", err)
		p := newProblem(ctx, http.StatusServiceUnavailable, stoa.PlatformUnavailable, "The master database cannot serve at the moment.")
		p.header.Set("Retry-After", "5")
		return nil, p
	}
	return a.healthz(ctx, in)
}
