package console

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/moves"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

func (c *Console) moveRoutes() []Route {
	read, move := scopeOf(authz.ReadStore), scopeOf(authz.MoveDatabase)
	return []Route{
		{Pattern: "GET /stores/{slug}/moves", RouteOptions: view(read), Handle: c.moves},
		{Pattern: "GET /stores/{slug}/moves/new", RouteOptions: view(move), Handle: c.newMove},
		{Pattern: "POST /stores/{slug}/moves/check", RouteOptions: databaseForm(move), Handle: c.checkTarget},
		{Pattern: "POST /stores/{slug}/moves", RouteOptions: databaseForm(move), Handle: c.startMove},
		{Pattern: "GET /stores/{slug}/moves/{move}", RouteOptions: view(read), Handle: c.move},
		{Pattern: "GET /stores/{slug}/moves/{move}/live", RouteOptions: stream(read), Handle: c.followMove},
		{Pattern: "GET /stores/{slug}/moves/{move}/{end}", RouteOptions: view(move), Handle: c.confirmMoveEnd},
		{Pattern: "POST /stores/{slug}/moves/{move}/{end}", RouteOptions: form(move), Handle: c.endMove},
	}
}

func movesPath(s stores.Store) string { return "/stores/" + s.Slug + "/moves" }

// movesView fills the page of a store's moves.
type movesView struct {
	Store   stores.Store
	Moves   []moves.Move
	MayMove bool
	pager
}

func (c *Console) moves(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ReadStore)
	if err != nil {
		return err
	}
	v := movesView{Store: store, MayMove: may(r, store, authz.MoveDatabase) && store.Database != nil}
	page, err := c.Moves.List(r.Context(), r.Principal, store.ID, 0, r.URL.Query().Get("cursor"))
	if err != nil {
		return err
	}
	v.Moves, v.pager = page.Moves, newPager(r, page.NextCursor)
	if len(v.Moves) > 0 && v.Moves[0].FinishedAt == nil {
		v.MayMove = false // one at a time
	}
	return c.render(w, r, http.StatusOK, storeFrame(store, "database", "Moves"), movesPage(v))
}

// newMoveView fills the page that begins a move.
type newMoveView struct {
	Store   stores.Store
	Form    ui.Form
	Checked *checkedConnection // the database that was named
	Managed []ui.Option        // the engines that the platform can make a database of
	Keep    string

	Supabase bool       // projects can be chosen here
	Cloud    *cloudView // the projects, if somebody wants to choose one
}

func (c *Console) newMove(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.MoveDatabase)
	if err != nil {
		return err
	}
	if store.Database == nil {
		return redirect(w, r, "/stores/"+store.Slug+"/database", "")
	}
	return c.showNewMove(w, r, newMoveView{Store: store})
}

func (c *Console) showNewMove(w http.ResponseWriter, r *Request, v newMoveView) error {
	v.Keep = keepWords(c.Moves.Keep())
	engines, err := c.Moves.Engines(r.Context(), v.Store.ID, *v.Store.Database)
	if err != nil {
		return err
	}
	for _, engine := range engines {
		label := engineWords(credential.Managed, engine) + ", on the platform’s server"
		if engine.Embedded() {
			label = "SQLite, embedded in the platform"
		}
		v.Managed = append(v.Managed, ui.Option{Value: string(engine), Label: label})
	}
	f := storeFrame(v.Store, "database", "Move the store")
	if v.Supabase = c.Cloud.Configured(); v.Supabase && r.URL.Query().Get("kind")+r.PostForm.Get("kind") == supabaseProject {
		cloud, err := c.readCloud(r, v.Store)
		if err != nil {
			return err
		}
		v.Cloud, f = &cloud, c.supabaseFrame(f)
	}
	status := v.Form.Status()
	if v.Checked != nil && v.Checked.Finding.Fault != nil {
		status = http.StatusUnprocessableEntity
	}
	return c.render(w, r, status, f, newMovePage(v))
}

// checkTarget tests a database of the owner's own, and shows what was understood and found.
// Nothing is stored.
func (c *Console) checkTarget(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.MoveDatabase)
	if err != nil {
		return err
	}
	if store.Database == nil {
		return redirect(w, r, "/stores/"+store.Slug+"/database", "")
	}
	v := newMoveView{Store: store, Form: ui.Form{Values: typed(r.PostForm)}}
	if v.Checked, err = c.check(r, store, c.Provisioning.TestTarget); err != nil {
		if v.Form, err = refused(r, err); err != nil {
			return err
		}
	}
	return c.showNewMove(w, r, v)
}

// startMove starts a move to a managed database, to a Supabase project, or to the database
// that checkTarget has sealed.
func (c *Console) startMove(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.MoveDatabase)
	if err != nil {
		return err
	}
	if store.Database == nil {
		return redirect(w, r, "/stores/"+store.Slug+"/database", "")
	}
	var m moves.Move
	to, err := c.sentTarget(r, store)
	if err == nil {
		m, err = c.Moves.Start(r.Context(), r.Principal, store.ID, to)
	}
	if err != nil {
		f, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showNewMove(w, r, newMoveView{Store: store, Form: f})
	}
	return redirect(w, r, movesPath(store)+"/"+m.ID.String(), "")
}

// sentTarget returns the database that the form names.
func (c *Console) sentTarget(r *Request, store stores.Store) (moves.Target, error) {
	if engine := r.PostForm.Get("managed"); engine != "" {
		return moves.Target{Managed: credential.EngineName(engine)}, nil
	}
	if r.PostForm.Get("kind") == supabaseProject {
		var faults stoa.Invalid
		if r.PostForm.Get("project") == "" {
			faults.Add("projectRef", "is needed: choose a project")
		}
		return moves.Target{Project: r.PostForm.Get("project")}, faults.Err()
	}
	values, err := c.sentDetails(r, store)
	if err != nil {
		return moves.Target{}, err
	}
	pasted, err := c.readDetails(values)
	return moves.Target{Credentials: pasted.Credentials}, err
}

// moveView shows a move with its steps.
type moveView struct {
	moves.Move
	Store   stores.Store
	MayMove bool
	Steps   []progressStep
}

func (c *Console) readMove(ctx context.Context, r *Request, store stores.Store) (moveView, error) {
	id, err := stoa.ParseID[stoa.MoveID](r.PathValue("move"))
	if err != nil {
		return moveView{}, stoa.Errorf(stoa.NotFound, "There is no such move of this store.")
	}
	m, err := c.Moves.Get(ctx, r.Principal, store.ID, id)
	return moveView{Move: m, Store: store, MayMove: may(r, store, authz.MoveDatabase), Steps: stepsOfMove(m)}, err
}

// path returns the address of the move's page.
func (v moveView) path() string { return movesPath(v.Store) + "/" + v.ID.String() }

// moveRefresh is how often a page without JavaScript shows the progress of a move.
const moveRefresh = 3 * time.Second

func (c *Console) move(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ReadStore)
	if err != nil {
		return err
	}
	v, err := c.readMove(r.Context(), r, store)
	if err != nil {
		return err
	}
	frame := storeFrame(store, "database", "Move")
	if !v.Settled() {
		frame.Refresh = moveRefresh
	}
	return c.render(w, r, http.StatusOK, frame, movePage(v))
}

// followMove sends the move whenever it has changed.
func (c *Console) followMove(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ReadStore)
	if err != nil {
		return err
	}
	return c.serveLive(w, r, nil, func(ctx context.Context) (templ.Component, bool, error) {
		v, err := c.readMove(ctx, r, store)
		return movePart(v), v.Settled(), err
	})
}

// moveEnds are the ways to end a move, by the last part of the path.
var moveEnds = map[string]struct {
	title, button string
	asked         string // until it is done
	facts         []string
	do            func(*moves.Service, context.Context, authz.Principal, stoa.StoreID, stoa.MoveID) (moves.Move, error)
}{
	"abort": {"Abort the move", "Abort the move", "The move is being aborted.", []string{
		"The store stays in the database that it has now.",
		"What the move has made in the new one is removed.",
	}, (*moves.Service).Abort},
	"rollback": {"Move the store back", "Move it back", "The store is being moved back.", []string{
		"The store returns to the database that it had before. What was written since is there too.",
		"The store stays open. Changes wait for a moment again.",
		"What the move has made in the new database is removed.",
	}, (*moves.Service).Rollback},
	"finish": {"Stop using the old database", "Stop using it", "The old database is no longer kept up to date.", []string{
		"The store can then not be moved back.",
		"An old database that the platform manages is deleted. One of your own keeps its rows as they are now.",
	}, (*moves.Service).Finish},
}

func (c *Console) confirmMoveEnd(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.MoveDatabase)
	if err != nil {
		return err
	}
	v, err := c.readMove(r.Context(), r, store)
	if err != nil {
		return err
	}
	return c.showMoveEnd(w, r, v, ui.Form{})
}

func (c *Console) showMoveEnd(w http.ResponseWriter, r *Request, v moveView, f ui.Form) error {
	end, known := moveEnds[r.PathValue("end")]
	if !known {
		return stoa.Errorf(stoa.NotFound, "There is no such page.")
	}
	return c.showConfirm(w, r, storeFrame(v.Store, "database", end.title), confirmView{
		Form: f, Title: end.title, Facts: end.facts, Button: end.button, Action: v.path() + "/" + r.PathValue("end"), Back: v.path(),
	})
}

func (c *Console) endMove(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.MoveDatabase)
	if err != nil {
		return err
	}
	v, err := c.readMove(r.Context(), r, store)
	if err != nil {
		return err
	}
	end, known := moveEnds[r.PathValue("end")]
	if !known {
		return stoa.Errorf(stoa.NotFound, "There is no such page.")
	}
	if _, err := end.do(c.Moves, r.Context(), r.Principal, store.ID, v.ID); err != nil {
		f, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showMoveEnd(w, r, v, f)
	}
	return redirect(w, r, v.path(), "")
}

// moveSteps are the steps of a move in their order.
var moveSteps = []struct{ name, text string }{
	{"prepare", "Make and check the new database"},
	{"copy", "Copy all rows, and record what changes meanwhile"},
	{"catch_up", "Copy what has changed, and compare all rows"},
	{"freeze", "Let changes wait for a moment, and compare the last ones"},
	{"swap", "Use the new database"},
	{"keep", "Keep the old database up to date, in case the store is moved back"},
	{"drop", "Remove what the move has added, and the old database if the platform manages it"},
}

// moveEndSteps are the steps of a move that does not go through.
var moveEndSteps = map[string]string{
	"undo":            "Remove what the move has made",
	"rollback_freeze": "Let changes wait for a moment, and compare the two databases",
	"rollback_swap":   "Use the old database again",
	"rollback_drop":   "Remove what the move has made",
}

// stepsOfMove returns the steps of a move that has not ended.
func stepsOfMove(m moves.Move) (list []progressStep) {
	if m.Done() {
		return nil
	}
	if text, ok := moveEndSteps[m.Step]; ok {
		return []progressStep{runningStep(text)}
	}
	passed := false
	for _, s := range moveSteps {
		switch {
		case s.name == m.Step:
			passed = true
			step := runningStep(s.text)
			if s.name == "copy" {
				step = step.rows(m.RowsCopied, m.RowsTotal)
			}
			list = append(list, step)
		case passed:
			list = append(list, waitingStep(s.text))
		default:
			list = append(list, doneStep(s.text))
		}
	}
	return list
}

// moveState describes the state of a move.
func moveState(m moves.Move) ui.State {
	switch m.State {
	case moves.Running:
		return ui.State{Word: "Running", Kind: ui.Info, Icon: "play"}
	case moves.Kept:
		return ui.State{Word: "Can be moved back", Kind: ui.Success, Icon: "check"}
	case moves.Succeeded:
		return ui.State{Word: "Moved", Kind: ui.Success, Icon: "check"}
	case moves.Failed:
		return ui.State{Word: "Failed", Kind: ui.Danger, Icon: "alert"}
	case moves.Aborted:
		return ui.State{Word: "Aborted", Kind: ui.Info, Icon: "pause"}
	case moves.RolledBack:
		return ui.State{Word: "Moved back", Kind: ui.Info, Icon: "pause"}
	}
	return ui.State{Word: string(m.State), Kind: ui.Info, Icon: "clock"}
}

// kindWords describe the kind of a database.
func kindWords(p moves.Place) string {
	if p.Kind == credential.Managed {
		return "managed " + engineWords(p.Kind, p.Engine)
	}
	return engineWords(p.Kind, p.Engine)
}

// frozenWords say how long writers had to wait.
func frozenWords(ms int64) string {
	if ms < 1000 {
		return fmt.Sprintf("%d ms", ms)
	}
	return fmt.Sprintf("%.1f s", float64(ms)/1000)
}

// keepWords describe the time in which a move can be rolled back.
func keepWords(d time.Duration) string {
	switch {
	case d%time.Hour != 0:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	case d == time.Hour:
		return "an hour"
	}
	return fmt.Sprintf("%d hours", int(d.Hours()))
}
