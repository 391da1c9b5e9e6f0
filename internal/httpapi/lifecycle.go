package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
)

// lifecycleRoutes registers suspension and deletion of a store and their reversal.
func (a *api) lifecycleRoutes() {
	tags := []string{"Stores"}
	errors := []int{401, 403, 404, 409, 503}
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.SuspendStore), maxBody: noBody, key: keyKept},
		huma.Operation{OperationID: "stores.suspend", Method: http.MethodPost, Path: "/api/stores/{id}/suspend", Tags: tags,
			Summary: "Close a store to its shoppers", Description: "They get 503 store_suspended. The store and its database stay as they are; resume opens it again. " +
				"A store that is suspended already stays so.", Errors: errors}, a.suspendStore)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.SuspendStore), maxBody: noBody, key: keyKept},
		huma.Operation{OperationID: "stores.resume", Method: http.MethodPost, Path: "/api/stores/{id}/resume", Tags: tags,
			Summary: "Open a suspended store again", Description: "What the operator has suspended only the operator resumes: 403.", Errors: errors}, a.resumeStore)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.DeleteStore), maxBody: noBody},
		huma.Operation{OperationID: "stores.delete", Method: http.MethodDelete, Path: "/api/stores/{id}", Tags: tags, DefaultStatus: http.StatusOK,
			Summary: "Delete a store", Description: "Closes it at once, and for good after a grace period: `deleteAfter` says when. Until then restore takes it back, " +
				"and its slug and hostnames stay its own. At the end its credentials are destroyed and a managed database is dropped; a database of the " +
				"merchant's own is left as it is. To delete it again changes nothing. For owners.", Errors: []int{401, 403, 404}}, a.deleteStore)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.DeleteStore), maxBody: noBody, key: keyKept},
		huma.Operation{OperationID: "stores.restore", Method: http.MethodPost, Path: "/api/stores/{id}/restore", Tags: tags,
			Summary: "Take a deletion back", Description: "The store is again in the state it had. For owners.", Errors: []int{401, 403, 404}}, a.restoreStore)
}

func (a *api) suspendStore(ctx context.Context, in *StorePath) (*storeOutput, error) {
	return a.transition(ctx, in, a.Stores.Suspend)
}

func (a *api) resumeStore(ctx context.Context, in *StorePath) (*storeOutput, error) {
	return a.transition(ctx, in, a.Stores.Resume)
}

func (a *api) restoreStore(ctx context.Context, in *StorePath) (*storeOutput, error) {
	return a.transition(ctx, in, a.Stores.Restore)
}

// transition changes the store's state and returns the store.
func (a *api) transition(ctx context.Context, in *StorePath, change func(context.Context, authz.Principal, stoa.StoreID) error) (*storeOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	if err := change(ctx, principal(ctx), id); err != nil {
		return nil, err
	}
	return a.readStore(ctx, id)
}

func (a *api) deleteStore(ctx context.Context, in *StorePath) (*storeOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	s, err := a.Stores.Delete(ctx, principal(ctx), id)
	if err != nil {
		return nil, err
	}
	out, err := a.withRun(ctx, s)
	if stoa.CodeOf(err) == stoa.StoreNotFound { // without a grace period, it may be gone by now
		return newStoreOutput(s, nil), nil
	}
	return out, err
}
