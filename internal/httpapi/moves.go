package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/moves"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// moveRoutes registers the calls that move a store to another database.
func (a *api) moveRoutes() {
	tags := []string{"Stores"}
	const path = "/api/stores/{id}/moves"
	route(a, routeOptions{timeout: waitTimeout, rate: rateDatabase, scope: scope(authz.MoveDatabase), maxBody: maxCredentials, key: keyKept},
		huma.Operation{OperationID: "moves.create", Method: http.MethodPost, Path: path, Tags: tags, DefaultStatus: http.StatusAccepted,
			Summary: "Move the store to another database",
			Description: "For owners, in person. The store stays in use: its rows are copied, changes follow, and writers wait for a moment while the two databases are " +
				"compared and the new one takes over. With `managed` the platform makes the database; otherwise `database` is like the body of " +
				"connect-database and leads to an empty one, or names a Supabase project of the account that the store is connected to (`projectRef`). " +
				"The old database is kept for a while, and follows: see rollback.",
			Errors: []int{400, 401, 403, 404, 409, 413, 422, 429, 503}}, a.startMove)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadStore), maxBody: noBody},
		huma.Operation{OperationID: "moves.list", Method: http.MethodGet, Path: path, Tags: tags, Summary: "List the store's moves", Description: "Newest first.",
			Errors: []int{401, 403, 404, 422}}, a.listMoves)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadStore), maxBody: noBody},
		huma.Operation{OperationID: "moves.get", Method: http.MethodGet, Path: path + "/{moveId}", Tags: tags, Summary: "Show a move and its progress", Description: "Its step, the rows copied and the changes carried over so far.",
			Errors: []int{401, 403, 404, 422}}, a.getMove)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.MoveDatabase), maxBody: noBody, key: keyKept},
		huma.Operation{OperationID: "moves.abort", Method: http.MethodPost, Path: path + "/{moveId}/abort", Tags: tags, DefaultStatus: http.StatusAccepted, Summary: "Abort a move",
			Description: "For owners, in person. Before the new database has taken over. The store continues in the database that it has, and what the move has made is removed.",
			Errors:      []int{401, 403, 404, 409, 422}}, a.abortMove)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.MoveDatabase), maxBody: noBody, key: keyKept},
		huma.Operation{OperationID: "moves.rollback", Method: http.MethodPost, Path: path + "/{moveId}/rollback", Tags: tags, DefaultStatus: http.StatusAccepted, Summary: "Move the store back",
			Description: "For owners, in person. While the move is `kept`: until `keepUntil`. What was written since is kept.",
			Errors:      []int{401, 403, 404, 409, 422}}, a.rollbackMove)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.MoveDatabase), maxBody: noBody, key: keyKept},
		huma.Operation{OperationID: "moves.finish", Method: http.MethodPost, Path: path + "/{moveId}/finish", Tags: tags, DefaultStatus: http.StatusAccepted, Summary: "Give up the old database of a move",
			Description: "For owners, in person. While the move is `kept`. It can then not be rolled back; an old database that the platform manages is deleted.",
			Errors:      []int{401, 403, 404, 409, 422}}, a.finishMove)
}

type startMoveInput struct {
	StorePath
	Body moveBody
}

type moveBody struct {
	Managed  credential.EngineName `json:"managed,omitempty" enum:"sqlite,postgresql,mysql" doc:"The engine of a database that the platform makes: sqlite is embedded in the platform"`
	Database *connectBody          `json:"database,omitempty" doc:"An empty database of your own, or a Supabase project, instead"`
}

type movePath struct {
	StorePath
	MoveID string `path:"moveId" format:"uuid"`
}

type moveOutput struct{ Body moveView }

type movesOutput struct{ Body movePageView }

type movePageView struct {
	Data       []moveView `json:"data"`
	NextCursor *string    `json:"nextCursor"`
}

type placeView struct {
	Type     credential.Kind       `json:"type" enum:"managed,postgresql,mysql,supabase"`
	Engine   credential.EngineName `json:"engine" enum:"sqlite,postgresql,mysql"`
	Host     string                `json:"host" doc:"Empty for an embedded database, and for a Supabase project until the store has its role there"`
	Port     int                   `json:"port"`
	Database string                `json:"database" doc:"Its name; until a Supabase project has a host, the project's ref"`
}

type moveView struct {
	ID         stoa.MoveID  `json:"id" format:"uuid"`
	StoreID    stoa.StoreID `json:"storeId" format:"uuid"`
	State      moves.State  `json:"state" enum:"running,kept,succeeded,failed,aborted,rolled_back" doc:"kept: the store uses the new database, and the old one follows"`
	Step       *string      `json:"step" doc:"null after the end"`
	From       placeView    `json:"from"`
	To         placeView    `json:"to"`
	RowsCopied int64        `json:"rowsCopied"`
	RowsTotal  int64        `json:"rowsTotal" doc:"How many rows the store had when the copy began; 0: not known yet"`
	Changes    int64        `json:"changes" doc:"Changes that were carried over after the copy"`
	FrozenMs   *int64       `json:"frozenMs" doc:"How long writers had to wait, in milliseconds; null before they had to"`
	Error      *faultView   `json:"error"`
	CreatedAt  time.Time    `json:"createdAt"`
	SwappedAt  *time.Time   `json:"swappedAt" doc:"Since when the store uses the new database; null before"`
	KeepUntil  *time.Time   `json:"keepUntil" doc:"Until when the move can be rolled back; null before the store uses the new database"`
	FinishedAt *time.Time   `json:"finishedAt"`
}

func newMoveView(m moves.Move) moveView {
	place := func(p moves.Place) placeView { return placeView{p.Kind, p.Engine, p.Host, p.Port, p.Name} }
	v := moveView{
		ID: m.ID, StoreID: m.StoreID, State: m.State, From: place(m.Source), To: place(m.Target), RowsCopied: m.RowsCopied, RowsTotal: m.RowsTotal, Changes: m.Changes,
		FrozenMs: m.FrozenMs, CreatedAt: m.CreatedAt, SwappedAt: m.SwappedAt, KeepUntil: m.KeepUntil, FinishedAt: m.FinishedAt,
		Error: newFaultView(m.Fault),
	}
	if m.Step != "" {
		v.Step = &m.Step
	}
	return v
}

func (a *api) startMove(ctx context.Context, in *startMoveInput) (*moveOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	to := moves.Target{Managed: in.Body.Managed}
	if (to.Managed == "") == (in.Body.Database == nil) {
		var faults stoa.Invalid
		faults.Add("managed", "give either this or database")
		return nil, faults.Err()
	}
	if in.Body.Database != nil {
		if to.Project, err = in.Body.Database.projectRef(); err != nil {
			return nil, err
		}
	}
	if in.Body.Database != nil && to.Project == "" {
		pasted, err := a.credentials(*in.Body.Database)
		if err != nil {
			return nil, err
		}
		to.Credentials = pasted.Credentials
	}
	m, err := a.Moves.Start(ctx, principal(ctx), id, to)
	if err != nil {
		return nil, err
	}
	return &moveOutput{newMoveView(m)}, nil
}

type listMovesInput struct {
	StorePath
	PageInput
}

func (a *api) listMoves(ctx context.Context, in *listMovesInput) (*movesOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	p, err := a.Moves.List(ctx, principal(ctx), id, in.Limit, in.Cursor)
	if err != nil {
		return nil, err
	}
	out := movePageView{Data: make([]moveView, len(p.Moves)), NextCursor: p.NextCursor}
	for i, m := range p.Moves {
		out.Data[i] = newMoveView(m)
	}
	return &movesOutput{out}, nil
}

func (a *api) getMove(ctx context.Context, in *movePath) (*moveOutput, error) {
	return a.move(ctx, in, a.Moves.Get)
}

func (a *api) abortMove(ctx context.Context, in *movePath) (*moveOutput, error) {
	return a.move(ctx, in, a.Moves.Abort)
}

func (a *api) rollbackMove(ctx context.Context, in *movePath) (*moveOutput, error) {
	return a.move(ctx, in, a.Moves.Rollback)
}

func (a *api) finishMove(ctx context.Context, in *movePath) (*moveOutput, error) {
	return a.move(ctx, in, a.Moves.Finish)
}

func (a *api) move(ctx context.Context, in *movePath, do func(context.Context, authz.Principal, stoa.StoreID, stoa.MoveID) (moves.Move, error)) (*moveOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	moveID, err := stoa.ParseID[stoa.MoveID](in.MoveID)
	if err != nil {
		return nil, stoa.Errorf(stoa.NotFound, "There is no such move of this store.")
	}
	m, err := do(ctx, principal(ctx), id, moveID)
	if err != nil {
		return nil, err
	}
	return &moveOutput{newMoveView(m)}, nil
}
