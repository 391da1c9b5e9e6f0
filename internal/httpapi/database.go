package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// databaseRoutes registers the calls on a store's existing database. provisioning.go
// connects one.
func (a *api) databaseRoutes() {
	tags := []string{"Stores"}
	route(a, routeOptions{timeout: waitTimeout, rate: rateDatabaseWait, scope: scope(authz.TestDatabase), maxBody: maxCredentials},
		huma.Operation{OperationID: "database.test", Method: http.MethodPost, Path: "/api/stores/{id}/database/test", Tags: tags,
			Summary: "Test a database",
			Description: "Without a body the store's own, and its health is recorded; with a body like that of connect-database the one it leads to, " +
				"and nothing is kept. Nothing is changed in either. A database that fails the test is a result, not a problem: 200 with `ok: false` " +
				"and the error that the same credentials would meet when the store is connected or its credentials rotated.",
			Errors: []int{400, 401, 403, 404, 409, 413, 422}}, a.testDatabase)
	route(a, routeOptions{timeout: waitTimeout, rate: rateDatabaseWait, scope: scope(authz.RotateCredentials), maxBody: maxCredentials, key: keyKept},
		huma.Operation{OperationID: "database.rotateCredentials", Method: http.MethodPost, Path: "/api/stores/{id}/database/rotate-credentials", Tags: tags,
			Summary: "Give the store new credentials for its database",
			Description: "They are tried first: they must reach the database that holds this store and be allowed to change it. Then they replace the old " +
				"ones, without a pause for the store's shoppers. If anything is wrong with them the old ones stay in use. To send the same again changes " +
				"nothing. A managed database has no credentials to rotate.",
			Errors: []int{400, 401, 403, 404, 409, 413, 422, 503}}, a.rotateCredentials)
	a.databaseAccessRoutes()
	a.moveRoutes()
	a.backupRoutes()
}

type testInput struct {
	StorePath
	Body *connectBody
}

type testOutput struct{ Body testView }

type testView struct {
	OK            bool       `json:"ok"`
	LatencyMs     *float64   `json:"latencyMs" doc:"One round trip to the server, in milliseconds; null when there was none"`
	ServerVersion *string    `json:"serverVersion" example:"15.4" doc:"null when the server did not say"`
	SchemaVersion *int64     `json:"schemaVersion" doc:"null when the database holds no store's tables"`
	Error         *faultView `json:"error"`

	Warnings []warningView `json:"warnings" doc:"What to know of a database that works: who else may read it"`

	Adoption *adoptionView `json:"adoption,omitempty" doc:"With adopt: what connect-database would do in a database that holds no store yet"`

	IgnoredSettings []string `json:"ignoredSettings,omitempty" doc:"Settings in the connection string that are the client's own and have no effect here"`
}

type adoptionView struct {
	Makes   []string `json:"makes" doc:"The tables that would be made"`
	Clashes []string `json:"clashes" doc:"What is there under a name that the store needs: rename it first"`
	Keeps   int      `json:"keeps" doc:"How many tables are there and stay as they are"`
}

func newTestView(f provisioning.Finding) testView {
	v := testView{OK: f.Fault == nil, Error: newFaultView(f.Fault), Warnings: newWarningViews(f.Warnings)}
	if f.Latency > 0 {
		ms := float64(f.Latency.Microseconds()) / 1000
		v.LatencyMs = &ms
	}
	if f.ServerVersion != "" {
		v.ServerVersion = &f.ServerVersion
	}
	if a := f.Adoption; a != nil {
		v.Adoption = &adoptionView{Makes: a.Makes, Clashes: append([]string{}, a.Clashes...), Keeps: a.Keeps}
	}
	if f.Schema.Version > 0 {
		v.SchemaVersion = &f.Schema.Version
	}
	return v
}

func (a *api) testDatabase(ctx context.Context, in *testInput) (*testOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	var tested *credential.Credentials // nil: the store's own
	var pasted credential.Pasted
	if in.Body != nil {
		if pasted, err = a.credentials(*in.Body); err != nil {
			return nil, err
		}
		tested = &pasted.Credentials
	}
	found, err := a.Provisioning.Test(ctx, principal(ctx), id, tested)
	if err != nil {
		return nil, err
	}
	view := newTestView(found)
	view.IgnoredSettings = pasted.Ignored
	return &testOutput{view}, nil
}

type rotateInput struct {
	StorePath
	Body connectBody
}

func (a *api) rotateCredentials(ctx context.Context, in *rotateInput) (*changedOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	pasted, err := a.credentials(in.Body)
	if err != nil {
		return nil, err
	}
	if err := a.Provisioning.Rotate(ctx, principal(ctx), id, pasted.Credentials); err != nil {
		return nil, err
	}
	if !mayRead(ctx, id) {
		return &changedOutput{Status: http.StatusNoContent}, nil
	}
	out, err := newChangedOutput(a.readStore(ctx, id))
	if err == nil {
		out.Body.IgnoredSettings = pasted.Ignored
	}
	return out, err
}
