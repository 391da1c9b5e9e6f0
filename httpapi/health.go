package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
)

func (a *api) healthRoutes() {
	tags := []string{"Operations"}
	route(a, huma.Operation{Method: http.MethodGet, Path: "/healthz", OperationID: "healthz", Tags: tags,
		Summary: "Is the process alive?"}, a.healthz)
	route(a, huma.Operation{Method: http.MethodGet, Path: "/readyz", OperationID: "readyz", Tags: tags,
		Summary: "Can it serve? Checks the master database.", Errors: []int{503}}, a.readyz)
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
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := a.Master.Ping(ctx); err != nil {
		a.Log.WarnContext(ctx, "master database does not answer", "err", err)
		p := newProblem(ctx, http.StatusServiceUnavailable, stoa.Internal, "The master database does not answer.")
		p.header.Set("Retry-After", "5")
		return nil, p
	}
	return a.healthz(ctx, in)
}
