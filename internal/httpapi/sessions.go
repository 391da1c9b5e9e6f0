package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
)

func (a *api) sessionRoutes() {
	tags := []string{"Auth"}
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopePerson, maxBody: noBody},
		huma.Operation{OperationID: "sessions.list", Method: http.MethodGet, Path: "/api/auth/sessions", Tags: tags,
			Summary: "The caller's open sessions", Description: "Those used last first, at most 100: the list has no pages.", Errors: []int{401, 403}}, a.listSessions)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopePerson, maxBody: noBody},
		huma.Operation{OperationID: "sessions.delete", Method: http.MethodDelete, Path: "/api/auth/sessions/{sessionId}", Tags: tags, DefaultStatus: http.StatusNoContent,
			Summary: "End one session", Description: "Its tokens stop working at once.", Errors: []int{401, 403, 404}}, a.endSession)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopePerson, maxBody: noBody},
		huma.Operation{OperationID: "sessions.deleteOthers", Method: http.MethodDelete, Path: "/api/auth/sessions", Tags: tags, DefaultStatus: http.StatusNoContent,
			Summary: "End all other sessions", Description: "All but the one that asks.", Errors: []int{401, 403}}, a.endOtherSessions)
}

type deviceView struct {
	ID           stoa.SessionID `json:"id" format:"uuid"`
	UserAgent    string         `json:"userAgent" doc:"What the device says it is"`
	Address      string         `json:"address" doc:"Where it was last used from"`
	CreatedAt    time.Time      `json:"createdAt"`
	LastUsedAt   time.Time      `json:"lastUsedAt" doc:"The last refresh: it may have been used since, for as long as an access token lives"`
	ExpiresAt    time.Time      `json:"expiresAt"`
	Current      bool           `json:"current" doc:"The session that asks"`
	Impersonated bool           `json:"impersonated" doc:"An operator of the platform acts as the user"`
}

type sessionsOutput struct {
	Body struct {
		Data       []deviceView `json:"data"`
		NextCursor *string      `json:"nextCursor"`
	}
}

func (a *api) listSessions(ctx context.Context, _ *struct{}) (*sessionsOutput, error) {
	list, err := a.Accounts.Sessions(ctx, principal(ctx))
	if err != nil {
		return nil, err
	}
	out := &sessionsOutput{}
	out.Body.Data = make([]deviceView, len(list))
	for i, d := range list {
		out.Body.Data[i] = deviceView(d)
	}
	return out, nil
}

type sessionPath struct {
	SessionID string `path:"sessionId" doc:"A UUID"`
}

func (a *api) endSession(ctx context.Context, in *sessionPath) (*struct{}, error) {
	id, err := stoa.ParseID[stoa.SessionID](in.SessionID)
	if err != nil {
		id = stoa.SessionID{} // the zero id, which no session has
	}
	return nil, a.Accounts.EndSession(ctx, principal(ctx), id)
}

func (a *api) endOtherSessions(ctx context.Context, _ *struct{}) (*struct{}, error) {
	return nil, a.Accounts.EndOtherSessions(ctx, principal(ctx))
}
