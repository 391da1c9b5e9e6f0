package httpapi

import (
	"context"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/supabase/link"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

func (a *api) provisioningRoutes() {
	tags := []string{"Stores"}
	waits := a.connectResponses()
	route(a, routeOptions{timeout: waitTimeout, rate: rateDatabase, scope: scope(authz.ConnectDatabase), maxBody: maxCredentials, key: keyKept},
		huma.Operation{OperationID: "database.connect", Method: http.MethodPost, Path: "/api/stores/{id}/connect-database", Tags: tags,
			Summary: "Give the store its database",
			Description: "The credentials are encrypted, checked, and the database is set up. In a Supabase project the store gets a role and a schema of its own, " +
				"and only that role's credentials are kept. Waits for the outcome as `Prefer: wait=N` says " +
				"(seconds, 25 unless told, 60 at most): 200 with the active store, 202 with the run while it goes on, or the fault that ended it; " +
				"after a fault, correct its cause and make the same call again. `ignoredSettings` names what a connection string holds that is its client's own.",
			Responses: waits, Errors: []int{400, 401, 403, 404, 409, 413, 422, 429, 503}}, a.connectDatabase)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadStore), maxBody: noBody},
		huma.Operation{OperationID: "provisioning.get", Method: http.MethodGet, Path: "/api/stores/{id}/provisioning", Tags: tags,
			Summary: "The store's last provisioning run", Description: "Each step with its state, times and fault.", Errors: []int{401, 404}}, a.getProvisioning)
	route(a, routeOptions{timeout: waitTimeout, rate: rateDatabase, scope: scope(authz.ConnectDatabase), maxBody: noBody, key: keyKept},
		huma.Operation{OperationID: "provisioning.retry", Method: http.MethodPost, Path: "/api/stores/{id}/provisioning/retry", Tags: tags,
			Summary: "Resume a failed run at the failed step", Description: "Waits like connect-database.",
			Responses: waits, Errors: []int{401, 403, 404, 409, 422, 429, 503}}, a.retryProvisioning)
}

// connectResponses describes the answers of a call that waits for a provisioning run.
func (a *api) connectResponses() map[string]*huma.Response {
	content := func(view reflect.Type) map[string]*huma.MediaType {
		return map[string]*huma.MediaType{jsonType: {Schema: a.huma.OpenAPI().Components.Schemas.Schema(view, true, "")}}
	}
	return map[string]*huma.Response{
		"200": {Description: "The store is active", Content: content(reflect.TypeFor[storeView]())},
		"202": {Description: "Still at work; follow Location", Content: content(reflect.TypeFor[runView]())},
	}
}

// maxCredentials is the body limit of calls with credentials: a CA bundle may have
// 1 MiB, and each of its line ends takes two bytes in JSON.
const maxCredentials = credential.MaxCABytes * 5 / 4

type faultView struct {
	Code    stoa.Code `json:"code"`
	Message string    `json:"message"`
}

func newFaultView(f *provisioning.Fault) *faultView {
	if f == nil {
		return nil
	}
	return &faultView{Code: f.Code, Message: f.Message}
}

// warningView is a warning, whose codes are none of problems.
type warningView struct {
	Code    string `json:"code" doc:"Stable name of the warning, for programs"`
	Message string `json:"message"`
}

func newWarningViews(list []tenantdb.Warning) []warningView {
	views := make([]warningView, len(list))
	for i, w := range list {
		views[i] = warningView{string(w.Code), w.Message}
	}
	return views
}

type runView struct {
	ID        stoa.RunID         `json:"id" format:"uuid"`
	StoreID   stoa.StoreID       `json:"storeId" format:"uuid"`
	State     provisioning.State `json:"state" enum:"queued,running,succeeded,failed"`
	Steps     []stepView         `json:"steps"`
	Attempt   int                `json:"attempt"`
	Warnings  []warningView      `json:"warnings" doc:"What to know of a database that works: who else may read it"`
	CreatedAt time.Time          `json:"createdAt"`

	IgnoredSettings []string `json:"ignoredSettings,omitempty" doc:"Settings in the connection string that are the client's own and have no effect here; in the answer to it alone"`
}

type stepView struct {
	Name       string             `json:"name"`
	State      provisioning.State `json:"state" enum:"pending,running,succeeded,failed"`
	StartedAt  *time.Time         `json:"startedAt"`
	FinishedAt *time.Time         `json:"finishedAt"`
	Error      *faultView         `json:"error"`
}

func newRunView(r provisioning.Run) runView {
	v := runView{ID: r.ID, StoreID: r.StoreID, State: r.State, Attempt: r.Attempt, CreatedAt: r.CreatedAt, Steps: make([]stepView, len(r.Steps)),
		Warnings: newWarningViews(r.Warnings)}
	for i, s := range r.Steps {
		v.Steps[i] = stepView{Name: s.Name, State: s.State, StartedAt: s.StartedAt, FinishedAt: s.FinishedAt, Error: newFaultView(s.Fault)}
	}
	return v
}

type connectInput struct {
	StorePath
	Prefer string `header:"Prefer" maxLength:"200" doc:"wait=N: how many seconds to wait for the outcome" example:"wait=25"`
	Body   connectBody
}

type connectBody struct {
	Type             credential.Kind `json:"type" enum:"managed,postgresql,mysql,supabase" doc:"managed: Stoa makes the database. The others: the merchant's own."`
	ConnectionString keyring.Secret  `json:"connectionString,omitempty" doc:"What the provider's page shows: postgresql://user:password@host:port/database, mysql://…, a JDBC or .NET string or the command line of psql or mysql, instead of the fields below; of a Supabase project the direct one or a pooler's, always"`
	Host             string          `json:"host,omitempty" maxLength:"253"`
	Port             int             `json:"port,omitempty" minimum:"0" maximum:"65535"`
	Database         string          `json:"database,omitempty" maxLength:"1024"`
	User             string          `json:"user,omitempty" maxLength:"1024"`
	Schema           string          `json:"schema,omitempty" maxLength:"63" doc:"of PostgreSQL: where the tables go, if not in the user's own schema"`
	Password         keyring.Secret  `json:"password,omitempty"`
	TLS              *struct {
		Mode          credential.TLSMode `json:"mode,omitempty" enum:"verify-full,verify-ca,disable" doc:"verify-full unless told; verify-ca, with caCertificate, for a server whose certificate has not its name"`
		CACertificate string             `json:"caCertificate,omitempty" maxLength:"1048576" doc:"PEM, when a private authority signed the server's certificate; at most 1 MiB and 500 certificates"`
	} `json:"tls,omitempty"`
	Adopt          bool           `json:"adopt,omitempty" doc:"The database holds tables of your own, which stay as they are: the store's tables are made beside them. It fails when one of them has a name that the store needs; database/test lists both."`
	ProjectURL     string         `json:"projectUrl,omitempty" maxLength:"1024" doc:"of a Supabase project: kept, encrypted, for the store's own use" example:"https://abcdefghijklmnopqrst.supabase.co"`
	AnonKey        keyring.Secret `json:"anonKey,omitempty" doc:"of a Supabase project: kept likewise"`
	ServiceRoleKey keyring.Secret `json:"serviceRoleKey,omitempty" doc:"of a Supabase project: kept likewise"`
	ProjectRef     string         `json:"projectRef,omitempty" maxLength:"100" doc:"of a Supabase project of the connected account (GET /api/stores/{id}/supabase/projects), instead of all other fields: the store gets a role and a schema of its own there" example:"abcdefghijklmnopqrst"`
}

// projectRef returns the ref of the Supabase project that the body names, or "".
func (b connectBody) projectRef() (string, error) {
	var faults stoa.Invalid
	if alone := (connectBody{Type: credential.KindSupabase, ProjectRef: b.ProjectRef}); b.ProjectRef != "" && b != alone {
		faults.Add("projectRef", "goes with the type supabase and with nothing else")
	}
	return b.ProjectRef, faults.Err()
}

// credentials converts the body to credentials. The domain validates them.
func (a *api) credentials(b connectBody) (credential.Pasted, error) {
	if b.ProjectRef != "" {
		var faults stoa.Invalid
		faults.Add("projectRef", "has no credentials to give; it is for connect-database and for moves")
		return credential.Pasted{}, faults.Err()
	}
	d := tenantdb.ConnectionDetails{
		Type: b.Type, ConnectionString: b.ConnectionString, Host: b.Host, Port: b.Port, Database: b.Database, User: b.User,
		Schema: b.Schema, Password: b.Password, ProjectURL: b.ProjectURL, AnonKey: b.AnonKey, ServiceRoleKey: b.ServiceRoleKey, Adopt: b.Adopt,
	}
	if b.TLS != nil {
		d.TLS, d.CACertificate = b.TLS.Mode, b.TLS.CACertificate
	}
	return a.Tenants.ReadDetails(d)
}

// connectOutput is the active store, or the run while it is in progress.
type connectOutput struct {
	Status   int
	Location string `header:"Location"`
	Applied  string `header:"Preference-Applied"`
	Body     any
}

// defaultWait is how long a request without a Prefer header waits.
const defaultWait = 25 * time.Second

// MaxWait is the longest time that a request may wait for a provisioning run.
const MaxWait = 60 * time.Second

func (a *api) connectDatabase(ctx context.Context, in *connectInput) (*connectOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	ref, err := in.Body.projectRef()
	if err != nil {
		return nil, err
	}
	if ref != "" {
		run, err := a.Provisioning.ConnectProject(ctx, principal(ctx), id, link.Choice{Ref: ref})
		if err != nil {
			return nil, err
		}
		return a.awaitRun(ctx, run, in.Prefer)
	}
	pasted, err := a.credentials(in.Body)
	if err != nil {
		return nil, err
	}
	run, err := a.Provisioning.Connect(ctx, principal(ctx), id, pasted.Credentials)
	if err != nil {
		return nil, err
	}
	out, err := a.awaitRun(ctx, run, in.Prefer)
	if err != nil {
		return nil, err
	}
	switch body := out.Body.(type) {
	case storeView:
		body.IgnoredSettings = pasted.Ignored
		out.Body = body
	case runView:
		body.IgnoredSettings = pasted.Ignored
		out.Body = body
	}
	return out, nil
}

func (a *api) getProvisioning(ctx context.Context, in *StorePath) (*struct{ Body runView }, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	run, err := a.Provisioning.Latest(ctx, principal(ctx), id)
	if err != nil {
		return nil, err
	}
	return &struct{ Body runView }{newRunView(run)}, nil
}

type retryInput struct {
	StorePath
	Prefer string `header:"Prefer" maxLength:"200" doc:"wait=N: how many seconds to wait for the outcome"`
}

func (a *api) retryProvisioning(ctx context.Context, in *retryInput) (*connectOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	run, err := a.Provisioning.Retry(ctx, principal(ctx), id)
	if err != nil {
		return nil, err
	}
	return a.awaitRun(ctx, run, in.Prefer)
}

// awaitRun answers when the run has ended, the preferred wait has passed, or the
// server stops.
func (a *api) awaitRun(ctx context.Context, run provisioning.Run, prefer string) (*connectOutput, error) {
	timeout, applied := preferredWait(prefer)
	run, err := a.waitForRun(ctx, run, timeout)
	if err != nil {
		return nil, err
	}
	switch run.State {
	case provisioning.Succeeded:
		if !mayRead(ctx, run.StoreID) {
			return &connectOutput{Status: http.StatusNoContent, Applied: applied}, nil
		}
		store, err := a.Stores.Get(ctx, principal(ctx), run.StoreID)
		if err != nil {
			return nil, err
		}
		return &connectOutput{Status: http.StatusOK, Applied: applied, Body: newStoreView(store, &run)}, nil
	case provisioning.Failed:
		return nil, run.Fault.Err()
	default:
		return &connectOutput{
			Status: http.StatusAccepted, Applied: applied,
			Location: "/api/stores/" + run.StoreID.String() + "/provisioning", Body: newRunView(run),
		}, nil
	}
}

// preferredWait parses "wait=N" (RFC 7240). A preference that cannot be parsed is
// ignored, which the RFC allows.
func preferredWait(prefer string) (timeout time.Duration, applied string) {
	for _, p := range strings.FieldsFunc(prefer, func(r rune) bool { return r == ',' || r == ';' }) {
		key, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		n, err := strconv.Atoi(strings.Trim(strings.TrimSpace(value), `"`))
		if strings.EqualFold(strings.TrimSpace(key), "wait") && err == nil && n >= 0 {
			timeout = min(time.Duration(min(n, 3600))*time.Second, MaxWait)
			return timeout, "wait=" + strconv.Itoa(int(timeout.Seconds()))
		}
	}
	return defaultWait, ""
}
