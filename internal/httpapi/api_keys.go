package httpapi

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/authz"
)

func (a *api) apiKeyRoutes() {
	tags := []string{"People"}
	const path = "/api/stores/{id}/api-keys"
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ManageKeys), maxBody: noBody},
		huma.Operation{OperationID: "apiKeys.list", Method: http.MethodGet, Path: path, Tags: tags,
			Summary: "The store's API keys", Description: "Newest first, without those that were revoked. Their number is limited (quota_exceeded): the list has no pages.",
			Errors: []int{401, 403, 404}}, a.listKeys)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ManageKeys), maxBody: maxJSON, key: keyKept},
		huma.Operation{OperationID: "apiKeys.create", Method: http.MethodPost, Path: path, Tags: tags, DefaultStatus: http.StatusCreated,
			Summary: "Make an API key",
			Description: "The answer shows the key this once. It acts for the caller, in this store and within its scopes, until it expires, is revoked, or the " +
				"caller is a member no more. Send it as Authorization: Bearer stoa_live_… The caller's address must be proven (403 email_unverified).",
			Errors: []int{400, 401, 403, 404, 413, 422}}, a.createKey)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ManageKeys), maxBody: noBody},
		huma.Operation{OperationID: "apiKeys.delete", Method: http.MethodDelete, Path: path + "/{keyId}", Tags: tags, DefaultStatus: http.StatusNoContent,
			Summary: "Revoke an API key", Description: "It stops working at once.", Errors: []int{401, 403, 404}}, a.revokeKey)
}

// KeyView is an API key. It is exported because huma reads only exported embedded structs.
type KeyView struct {
	ID         stoa.KeyID  `json:"id" format:"uuid"`
	Name       string      `json:"name"`
	Prefix     string      `json:"prefix" example:"stoa_live_ABCD" doc:"How the key begins"`
	Scopes     []string    `json:"scopes"`
	CreatedBy  stoa.UserID `json:"createdBy" format:"uuid" doc:"Whom it acts for"`
	CreatedAt  time.Time   `json:"createdAt"`
	ExpiresAt  *time.Time  `json:"expiresAt" doc:"When it ends by itself; null if never"`
	LastUsedAt *time.Time  `json:"lastUsedAt" doc:"When it was last used, to the minute; null until it is used"`
}

func newKeyView(k apikeys.Key) KeyView {
	return KeyView{
		ID: k.ID, Name: k.Name, Prefix: k.Prefix, Scopes: strings.Fields(k.Scopes), CreatedBy: k.CreatedBy,
		CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt, LastUsedAt: k.LastUsedAt,
	}
}

type keysOutput struct {
	Body struct {
		Data       []KeyView `json:"data"`
		NextCursor *string   `json:"nextCursor"`
	}
}

func (a *api) listKeys(ctx context.Context, in *StorePath) (*keysOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	list, err := a.APIKeys.List(ctx, principal(ctx), id)
	if err != nil {
		return nil, err
	}
	out := &keysOutput{}
	out.Body.Data = make([]KeyView, len(list))
	for i, k := range list {
		out.Body.Data[i] = newKeyView(k)
	}
	return out, nil
}

type createKeyInput struct {
	StorePath
	Body struct {
		Name      string     `json:"name" maxLength:"100" example:"Warehouse"`
		Scopes    []string   `json:"scopes" maxItems:"50" example:"[\"store:read\",\"credits:spend\"]"`
		ExpiresAt *time.Time `json:"expiresAt,omitempty" doc:"Unless given, the key does not expire"`
	}
}

type createKeyOutput struct {
	Location string `header:"Location"`
	Body     struct {
		KeyView
		Key string `json:"key" doc:"Shown this once"`
	}
}

func (a *api) createKey(ctx context.Context, in *createKeyInput) (*createKeyOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	k, secret, err := a.APIKeys.Create(ctx, principal(ctx), id, apikeys.NewKey{Name: in.Body.Name, Scopes: in.Body.Scopes, ExpiresAt: in.Body.ExpiresAt})
	if err != nil {
		return nil, err
	}
	out := &createKeyOutput{Location: storeAddress(id) + "/api-keys/" + k.ID.String()}
	out.Body.KeyView, out.Body.Key = newKeyView(k), secret.Reveal()
	return out, nil
}

type keyPath struct {
	StorePath
	KeyID string `path:"keyId" doc:"A UUID"`
}

func (a *api) revokeKey(ctx context.Context, in *keyPath) (*struct{}, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	key, err := stoa.ParseID[stoa.KeyID](in.KeyID)
	if err != nil {
		key = stoa.KeyID{} // the zero id, which no key has
	}
	return nil, a.APIKeys.Revoke(ctx, principal(ctx), id, key)
}
