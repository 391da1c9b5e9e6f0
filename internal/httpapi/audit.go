package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/negotiation"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/web"
)

func (a *api) auditRoutes() {
	page := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[auditPage](), true, "")
	op := func(id, path, tag, summary, description string, errors ...int) huma.Operation {
		return huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Tags: []string{tag}, Summary: summary,
			Description: description + "Newest first. With Accept: text/csv the answer is all that the filters leave, as a file in the form of " +
				"the credits' history. Nobody can change the log.",
			Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
				jsonType: {Schema: page},
				csvType:  {Schema: &huma.Schema{Type: huma.TypeString, Examples: []any{strings.Join(audit.ColumnNames, ",") + "\r\n"}}},
			}}}, Errors: errors}
	}
	route(a, routeOptions{timeout: requestTimeout, exportTimeout: csvTimeout, rate: rateCaller, scope: scope(authz.ReadAudit), maxBody: noBody},
		op("stores.audit", "/api/stores/{id}/audit", "People", "The store's audit log",
			"Who did what to the store, from where, when and how it ended: members, keys, database, lifecycle, credits, and what operators of the platform did. ",
			401, 403, 404, 422), a.storeAudit)
	route(a, routeOptions{timeout: requestTimeout, exportTimeout: csvTimeout, rate: rateCaller, scope: scopeOperator, maxBody: noBody},
		op("operator.audit", "/api/operator/audit", "Operator", "The platform's audit log", "All stores, sign-ins and operators. ", 401, 403, 422), a.platformAudit)
}

type auditView struct {
	ID        stoa.EventID      `json:"id" format:"uuid"`
	CreatedAt time.Time         `json:"createdAt"`
	Action    string            `json:"action" example:"member.invited"`
	Outcome   audit.Outcome     `json:"outcome" enum:"success,denied,failed"`
	UserID    *stoa.UserID      `json:"userId" format:"uuid" doc:"null: the operator at the command line, or the platform itself"`
	Email     *string           `json:"email" doc:"Of that user; null: there is no user, or they were deleted"`
	StoreID   *stoa.StoreID     `json:"storeId" format:"uuid" doc:"The store; null: it concerns no store"`
	Address   string            `json:"address"`
	RequestID string            `json:"requestId"`
	Details   map[string]string `json:"details"`
}

func newAuditView(e audit.Entry) auditView {
	v := auditView{
		ID: e.ID, CreatedAt: e.CreatedAt, Action: e.Action, Outcome: e.Outcome, UserID: e.UserID, Email: e.Email, StoreID: e.StoreID,
		Address: e.Address, RequestID: e.RequestID, Details: map[string]string{},
	}
	_ = json.Unmarshal([]byte(e.Details), &v.Details) // written as JSON by package audit
	return v
}

// AuditInput filters the log.
type AuditInput struct {
	PageInput
	Accept  string    `header:"Accept" maxLength:"2000" doc:"text/csv for all of it as CSV"`
	Action  string    `query:"action" maxLength:"100" example:"member.invited"`
	Outcome string    `query:"outcome" enum:"success,denied,failed"`
	User    string    `query:"userId" format:"uuid"`
	From    time.Time `query:"from" doc:"Not before this moment"`
	To      time.Time `query:"to" doc:"Before this moment"`
}

func (in AuditInput) filter() audit.Filter {
	f := audit.Filter{Action: in.Action, Outcome: in.Outcome, From: optionalTime(in.From), To: optionalTime(in.To), Limit: in.Limit, Cursor: in.Cursor}
	f.UserID, _ = stoa.ParseID[stoa.UserID](in.User) // huma has checked its format
	return f
}

type auditPage struct {
	Data       []auditView `json:"data"`
	NextCursor *string     `json:"nextCursor"`
}

type storeAuditInput struct {
	StorePath
	AuditInput
}

func (a *api) storeAudit(ctx context.Context, in *storeAuditInput) (*huma.StreamResponse, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	return a.audit(in.AuditInput, "audit-"+id.String(), func(f audit.Filter) (audit.Page, error) {
		return authz.ReadAuditLog(ctx, a.Master, principal(ctx), id, f)
	})
}

func (a *api) platformAudit(ctx context.Context, in *AuditInput) (*huma.StreamResponse, error) {
	return a.audit(*in, "audit", func(f audit.Filter) (audit.Page, error) {
		return authz.ReadPlatformLog(ctx, a.Master, principal(ctx), f)
	})
}

// audit answers with a page as JSON, or with all pages as one CSV file.
func (a *api) audit(in AuditInput, name string, read func(audit.Filter) (audit.Page, error)) (*huma.StreamResponse, error) {
	f := in.filter()
	asCSV := negotiation.SelectQValue(in.Accept, []string{jsonType, csvType}) == csvType
	if asCSV {
		f.Limit, f.Cursor = 100, ""
	}
	page, err := read(f)
	if err != nil {
		return nil, err
	}
	if asCSV {
		return &huma.StreamResponse{Body: func(ctx huma.Context) { writeCSV(a, ctx, name, audit.ColumnNames, auditRow, page.All(f, read)) }}, nil
	}
	out := auditPage{Data: make([]auditView, len(page.Entries)), NextCursor: page.NextCursor}
	for i, e := range page.Entries {
		out.Data[i] = newAuditView(e)
	}
	return a.jsonResponse(out), nil
}

// auditRow returns the columns of an entry.
func auditRow(e audit.Entry) []string { return e.Columns(web.EscapeFormula) }
