package console

import (
	"net/http"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/stores"
)

// storeFor returns the store that the path names, for a page of an action that the
// caller must be allowed.
func (c *Console) storeFor(r *Request, a authz.Action) (stores.Store, error) {
	store, err := c.store(r)
	if err != nil {
		return stores.Store{}, err
	}
	_, err = authz.Check(r.Context(), c.Master, r.Principal, store.ID, a)
	return store, err
}

// may reports whether to show a control for an action on the store. The domain checks
// again when the control is used.
func may(r *Request, store stores.Store, a authz.Action) bool {
	return store.Role.Can(a) && stoa.CodeOf(r.Principal.Within(store.ID, a)) != stoa.Forbidden
}

// confirmView fills the page that asks before something that cannot be undone.
type confirmView struct {
	Form    ui.Form
	Title   string
	Facts   []string // what will happen
	Action  string   // the form's address
	Name    string   // to type; empty: none
	Button  string
	Back    string // where the reader came from
	Choices []ui.Option
	Choice  string    // the label of Choices
	Check   *ui.Field // a box to tick
}

func (c *Console) showConfirm(w http.ResponseWriter, r *Request, frame ui.Frame, v confirmView) error {
	return c.render(w, r, v.Form.Status(), frame, confirmPage(v))
}

// confirmed reports whether the form repeats name in the field confirm. Otherwise it
// returns the form with that fault.
func confirmed(r *Request, name string) (ui.Form, bool) {
	if sameWords(r.PostForm.Get("confirm"), name) {
		return ui.Form{}, true
	}
	return ui.Form{
		Values: typed(r.PostForm), Code: http.StatusUnprocessableEntity,
		Faults: map[string]string{"confirm": "This is not the name. Type it as it is shown."},
	}, false
}

// sameWords compares texts as they are shown: a browser shows several spaces as one, and
// a keyboard may compose letters in another way.
func sameWords(a, b string) bool {
	words := func(s string) string { return strings.Join(strings.Fields(norm.NFC.String(s)), " ") }
	return words(a) == words(b)
}

// refusedHere returns what refused does, and for a rule of the domain that forbids the
// change a form that says so.
func refusedHere(r *Request, err error) (ui.Form, error) {
	if stoa.CodeOf(err) == stoa.Forbidden {
		return ui.Form{Values: typed(r.PostForm), Fault: messageOf(err), Code: http.StatusForbidden}, nil
	}
	return refused(r, err)
}

// roleWords says what each role may do.
var roleWords = map[authz.Role]string{
	authz.Owner:    "may do everything, deletion and transfer included",
	authz.Admin:    "manages everything but owners and the deletion",
	authz.Member:   "changes the store and spends its credits",
	authz.Viewer:   "sees the store and changes nothing",
	authz.Operator: "operates this platform",
}
