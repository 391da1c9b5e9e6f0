package httpapi

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/version"
)

func (a *api) storeRoutes() {
	tags := []string{"Stores"}
	create := huma.Operation{OperationID: "stores.create", Path: "/api/stores", Method: http.MethodPost, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Create a store", Description: "Without a slug one is derived from the name. A slug that another store gave up a short while ago " +
			"counts as taken. Connect a database next. How many stores one user may create is limited: quota_exceeded, and rate_limited for many in an hour.",
		Errors: []int{400, 401, 403, 409, 413, 422, 429}}
	duplicate := create
	duplicate.OperationID, duplicate.Path, duplicate.Deprecated = "stores.createDeprecated", "/api/stores/create", true
	duplicate.Description = "The same as POST /api/stores, which replaces it."
	for _, op := range []huma.Operation{create, duplicate} {
		route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopePerson, maxBody: maxJSON, key: keyKept}, op, a.createStore)
	}
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadStore), maxBody: noBody},
		huma.Operation{OperationID: "stores.list", Method: http.MethodGet, Path: "/api/stores", Tags: tags,
			Summary: "List the caller's stores", Description: "Newest first, without profiles.", Errors: []int{401, 422}}, a.listStores)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadStore), maxBody: noBody},
		huma.Operation{OperationID: "stores.get", Method: http.MethodGet, Path: "/api/stores/{id}", Tags: tags,
			Summary: "One store, with its profile", Description: "When the store's database is down, profile is null and database.status is failed. " +
				"ETag is the version of name, slug and profile, for If-Match; it is absent without a profile.",
			Errors: []int{401, 404}}, a.getStore)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.UpdateStore), maxBody: maxJSON},
		huma.Operation{OperationID: "stores.update", Method: http.MethodPatch, Path: "/api/stores/{id}", Tags: tags,
			Summary: "Change a store's profile", Description: "Fields left out stay as they are. name and slug are kept in step in the registry. " +
				"The slug of before is kept for the store's owners for a while and leads nowhere meanwhile. With If-Match the change is made only if " +
				"nobody has changed the store since it was read: otherwise 412 edit_conflict, and nothing has changed.",
			Errors: []int{400, 401, 403, 404, 409, 412, 413, 422, 503}}, a.updateStore)
}

type storeView struct {
	ID           stoa.StoreID    `json:"id" format:"uuid"`
	Name         string          `json:"name"`
	Slug         string          `json:"slug"`
	Status       stores.Status   `json:"status" enum:"pending_database,provisioning,active,suspended,deleting,deleted"`
	Role         authz.Role      `json:"role" enum:"owner,admin,member,viewer,operator" doc:"What the caller is to the store"`
	Hostnames    []hostnameView  `json:"hostnames"`
	Database     *databaseView   `json:"database"`
	Credits      creditsView     `json:"credits"`
	Profile      *Profile        `json:"profile"`
	Provisioning *runSummaryView `json:"provisioning"`
	CreatedAt    time.Time       `json:"createdAt"`
	UpdatedAt    time.Time       `json:"updatedAt"`
	DeleteAfter  *time.Time      `json:"deleteAfter" doc:"When a store that is being deleted will be gone for good; null for every other"`
	Suspended    bool            `json:"suspendedByOperator" doc:"The operator has suspended the store: only they can resume it"`

	IgnoredSettings []string `json:"ignoredSettings,omitempty" doc:"Settings in a connection string that are the client's own and have no effect here; in the answer to it alone"`
}

type hostnameView struct {
	Hostname string `json:"hostname"`
	Primary  bool   `json:"primary"`
	Custom   bool   `json:"custom"`
	Verified bool   `json:"verified"`
}

type databaseView struct {
	Type          credential.Kind       `json:"type" enum:"managed,postgresql,mysql,supabase"`
	Engine        credential.EngineName `json:"engine" enum:"sqlite,postgresql,mysql"`
	Host          string                `json:"host"`
	Port          int                   `json:"port"`
	Database      string                `json:"database"`
	Status        tenantdb.Status       `json:"status" enum:"unknown,ok,failed"`
	LastError     *faultView            `json:"lastError" doc:"Why the status is failed, and what to do about it; null: it is not"`
	SchemaVersion int64                 `json:"schemaVersion"`
	LastCheckedAt *time.Time            `json:"lastCheckedAt"`
}

func newDatabaseView(d *tenantdb.Info) *databaseView {
	v := &databaseView{
		Type: d.Kind, Engine: d.Engine, Host: d.Host, Port: d.Port, Database: d.DatabaseName,
		Status: d.Status, SchemaVersion: d.SchemaVersion, LastCheckedAt: d.LastCheckedAt,
	}
	if d.LastError != "" {
		v.LastError = &faultView{Code: d.LastError, Message: tenantdb.HealthMessage(d.LastError)}
	}
	return v
}

type creditsView struct {
	Balance   credits.Amount `json:"balance" example:"100"`
	Reserved  credits.Amount `json:"reserved" example:"0"`
	Available credits.Amount `json:"available" example:"100" doc:"balance − reserved"`
	Debt      credits.Amount `json:"debt" example:"0" doc:"Credits that are owed because money went back after they were spent; nothing can be spent until they are repaid"`
}

type runSummaryView struct {
	ID    stoa.RunID         `json:"id" format:"uuid"`
	State provisioning.State `json:"state" enum:"queued,running,succeeded,failed"`
	Step  string             `json:"step"`
	Error *faultView         `json:"error"`

	Warnings []warningView `json:"warnings" doc:"What to know of a database that works: who else may read it"`
}

func newStoreView(s stores.Store, run *provisioning.Run) storeView {
	v := storeView{
		ID: s.ID, Name: s.Name, Slug: s.Slug, Status: s.Status, Role: s.Role, Profile: newProfile(s.Profile),
		Hostnames: make([]hostnameView, len(s.Hostnames)), CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt,
		DeleteAfter: s.DeleteAfter, Suspended: s.SuspendedByOperator,
	}
	for i, h := range s.Hostnames {
		v.Hostnames[i] = hostnameView{Hostname: h.Hostname, Primary: h.Primary, Custom: h.Custom, Verified: h.VerifiedAt != nil}
	}
	if d := s.Database; d != nil {
		v.Database = newDatabaseView(d)
	}
	if b := s.Credits; b != nil { // every store has a balance, from the transaction on that creates it
		v.Credits = creditsView{Balance: b.Balance, Reserved: b.Reserved, Available: b.Available(), Debt: b.Debt}
	}
	if run != nil {
		v.Provisioning = &runSummaryView{
			ID: run.ID, State: run.State, Step: run.Step, Error: newFaultView(run.Fault), Warnings: newWarningViews(run.Warnings),
		}
	}
	return v
}

func (a *api) storeViews(list []stores.Store) []storeView {
	views := make([]storeView, len(list))
	for i, s := range list {
		views[i] = newStoreView(s, nil)
	}
	return views
}

// storeID parses an id from a path or header. An invalid id gets the same error as a
// store that does not exist.
func storeID(s string) (stoa.StoreID, error) {
	id, err := stoa.ParseID[stoa.StoreID](s)
	if err != nil {
		return id, authz.ErrStoreNotFound()
	}
	return id, nil
}

// StorePath names a store in a path. It is exported because huma reads only exported
// embedded structs.
type StorePath struct {
	ID string `path:"id" doc:"The store's id, a UUID"`
}

type storeOutput struct {
	ETag string `header:"ETag" doc:"The version of name, slug and profile, for If-Match"`
	Body storeView
}

func newStoreOutput(s stores.Store, run *provisioning.Run) *storeOutput {
	out := &storeOutput{Body: newStoreView(s, run)}
	if v := s.Version(); v != "" {
		out.ETag = quote(v)
	}
	return out
}

type createStoreInput struct {
	Body struct {
		Name string `json:"name" maxLength:"120" example:"My Second Store"`
		Slug string `json:"slug,omitempty" maxLength:"63" doc:"Lower-case letters, digits and hyphens" example:"my-second-store"`
	}
}

// storeAddress returns the address of a store, for Location.
func storeAddress(id stoa.StoreID) string { return "/api/stores/" + id.String() }

type createdStoreOutput struct {
	Location string `header:"Location"`
	ETag     string `header:"ETag"`
	Body     storeView
}

func (a *api) createStore(ctx context.Context, in *createStoreInput) (*createdStoreOutput, error) {
	s, err := a.Stores.Create(ctx, principal(ctx), stores.NewStore{
		Name: in.Body.Name, Slug: in.Body.Slug, IdempotencyKey: idempotencyKey(ctx),
	})
	if err != nil {
		return nil, err
	}
	about(ctx, s.ID)
	out := newStoreOutput(s, nil)
	return &createdStoreOutput{Location: storeAddress(s.ID), ETag: out.ETag, Body: out.Body}, nil
}

// PageInput selects a page of a list.
type PageInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20"`
	Cursor string `query:"cursor" maxLength:"200" doc:"nextCursor of the page before"`
}

type listStoresOutput struct {
	Body struct {
		Data       []storeView `json:"data"`
		NextCursor *string     `json:"nextCursor"`
	}
}

func (a *api) listStores(ctx context.Context, in *PageInput) (*listStoresOutput, error) {
	page, err := a.Stores.List(ctx, principal(ctx), in.Limit, in.Cursor)
	if err != nil {
		return nil, err
	}
	out := &listStoresOutput{}
	out.Body.Data, out.Body.NextCursor = a.storeViews(page.Stores), page.NextCursor
	return out, nil
}

func (a *api) getStore(ctx context.Context, in *StorePath) (*storeOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	return a.readStore(ctx, id)
}

// readStore reads the store with its last provisioning run.
func (a *api) readStore(ctx context.Context, id stoa.StoreID) (*storeOutput, error) {
	var latest provisioning.LatestRun
	s, err := a.Stores.GetWith(ctx, principal(ctx), id, latest.Queries(id)...)
	if err != nil {
		return nil, err
	}
	run, err := a.Provisioning.RunOf(ctx, &latest)
	if err != nil {
		return nil, err
	}
	return newStoreOutput(s, run), nil
}

func (a *api) withRun(ctx context.Context, s stores.Store) (*storeOutput, error) {
	run, err := a.Provisioning.Latest(ctx, principal(ctx), s.ID)
	if stoa.CodeOf(err) == stoa.NotFound {
		return newStoreOutput(s, nil), nil
	}
	if err != nil {
		return nil, err
	}
	return newStoreOutput(s, &run), nil
}

type updateStoreInput struct {
	StorePath
	MatchInput
	Body storedata.ProfilePatch
}

// MatchInput is the condition of a change. It is exported because huma reads only exported
// embedded structs.
type MatchInput struct {
	IfMatch string `header:"If-Match" maxLength:"1000" doc:"The ETag that was read: the change is made only if nobody has changed it since; otherwise 412 edit_conflict, and nothing has changed" example:"\"3f786850e387550fdab836ed7e6dc881\""`
}

// quote returns a version as an ETag; writeWhole adds the hash of the body.
func quote(version string) string { return `"` + version + `"` }

// ifMatch returns the versions that an If-Match header lists, or nil without a condition:
// without the header, and for *, which everything matches. A weak ETag matches nothing
// (RFC 9110, section 13.1.1).
func ifMatch(header string) (version.Match, error) {
	header = strings.TrimSpace(header)
	if header == "" || header == "*" {
		return nil, nil
	}
	versions := version.Match{}
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimSpace(part)
		if strings.HasPrefix(part, "W/") {
			continue
		}
		tag, opened := strings.CutPrefix(part, `"`)
		tag, closed := strings.CutSuffix(tag, `"`)
		if !opened || !closed || tag == "" || strings.Contains(tag, `"`) {
			var faults stoa.Invalid
			faults.Add("If-Match", "must be the ETag that was read, in its quotation marks")
			return nil, faults.Err()
		}
		tag, _, _ = strings.Cut(tag, ".") // the hash of the body follows, see writeWhole
		versions = append(versions, tag)
	}
	return versions, nil
}

// changedOutput is the store after a change. For an API key without the scope to
// read it, the status is 204 and there is no body.
type changedOutput struct {
	Status int
	ETag   string `header:"ETag"`
	Body   storeView
}

func newChangedOutput(out *storeOutput, err error) (*changedOutput, error) {
	if err != nil {
		return nil, err
	}
	return &changedOutput{Status: http.StatusOK, ETag: out.ETag, Body: out.Body}, nil
}

// mayRead reports whether the caller, who may change the store, may read it too. An
// API key may lack that scope.
func mayRead(ctx context.Context, id stoa.StoreID) bool {
	return principal(ctx).Within(id, authz.ReadStore) == nil
}

func (a *api) updateStore(ctx context.Context, in *updateStoreInput) (*changedOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	match, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	s, err := a.Stores.Update(ctx, principal(ctx), id, match, in.Body)
	if err != nil {
		return nil, err
	}
	if !mayRead(ctx, id) {
		return &changedOutput{Status: http.StatusNoContent}, nil
	}
	return newChangedOutput(a.withRun(ctx, s))
}
