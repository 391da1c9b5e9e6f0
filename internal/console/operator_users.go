package console

import (
	"net/http"
	"net/url"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/console/ui"
)

func (c *Console) operatorUserRoutes() []Route {
	return []Route{
		{Pattern: "GET /operator/users", RouteOptions: view(Operator), Handle: c.operatorUsers},
		{Pattern: "GET /operator/users/{id}", RouteOptions: view(Operator), Handle: c.operatorUser},
		{Pattern: "POST /operator/users/{id}/suspend", RouteOptions: form(Operator), Handle: c.suspendUser},
		{Pattern: "POST /operator/users/{id}/resume", RouteOptions: form(Operator), Handle: c.resumeUser},
		{Pattern: "POST /operator/users/{id}/impersonate", RouteOptions: form(Operator), Handle: c.impersonate},
	}
}

// operatorUsersView fills the list of users.
type operatorUsersView struct {
	Search string
	Only   string
	Users  []accounts.UserSummary
	Form   ui.Form // the fault of the search
	pager
}

func (c *Console) operatorUsers(w http.ResponseWriter, r *Request) error {
	q := r.URL.Query()
	f := accounts.UserFilter{Search: q.Get("q"), Only: q.Get("only"), Cursor: q.Get("cursor")}
	page, err := c.Accounts.SearchUsers(r.Context(), r.Principal, f)
	v := operatorUsersView{Search: f.Search, Only: f.Only, Users: page.Users, pager: newPager(r, page.NextCursor)}
	if err != nil {
		if v.Form, err = refused(r, err); err != nil {
			return err
		}
	}
	return c.render(w, r, v.Form.Status(), operatorFrame("users", "Users"), operatorUsersPage(v))
}

// operatorUserView fills the page of a user.
type operatorUserView struct {
	User accounts.UserDetails
	Form ui.Form
	Self bool
}

func (v operatorUserView) path() string { return "/operator/users/" + v.User.ID.String() }

func (c *Console) operatorUser(w http.ResponseWriter, r *Request) error {
	return c.showUser(w, r, http.StatusOK, ui.Form{})
}

func (c *Console) showUser(w http.ResponseWriter, r *Request, status int, f ui.Form) error {
	id, err := userID(r)
	if err != nil {
		return err
	}
	user, err := c.Accounts.UserForOperator(r.Context(), r.Principal, id)
	if err != nil {
		return err
	}
	v := operatorUserView{User: user, Form: f, Self: id == r.Principal.UserID}
	return c.render(w, r, status, operatorFrame("users", user.Email), operatorUserPage(v))
}

// userID returns the user that the path names. It fails with not_found.
func userID(r *Request) (stoa.UserID, error) {
	id, err := stoa.ParseID[stoa.UserID](r.PathValue("id"))
	if err != nil {
		return id, notFound()
	}
	return id, nil
}

func (c *Console) suspendUser(w http.ResponseWriter, r *Request) error {
	id, err := userID(r)
	if err != nil {
		return err
	}
	if err := c.Accounts.SuspendUser(r.Context(), r.Principal, id, r.PostForm.Get("reason")); err != nil {
		return c.refuseUserForm(w, r, err)
	}
	return redirect(w, r, "/operator/users/"+id.String(), "The account is suspended. Its sessions have ended, and the reason was mailed.")
}

func (c *Console) resumeUser(w http.ResponseWriter, r *Request) error {
	id, err := userID(r)
	if err != nil {
		return err
	}
	if err := c.Accounts.ResumeUser(r.Context(), r.Principal, id, r.PostForm.Get("reason")); err != nil {
		return c.refuseUserForm(w, r, err)
	}
	return redirect(w, r, "/operator/users/"+id.String(), "The suspension has ended. The person can sign in again.")
}

func (c *Console) refuseUserForm(w http.ResponseWriter, r *Request, err error) error {
	f, err := refused(r, err)
	if err != nil {
		return err
	}
	return c.showUser(w, r, f.Status(), f)
}

func userFilterURL(only string) string {
	if only == "" {
		return "/operator/users"
	}
	return "/operator/users?only=" + url.QueryEscape(only)
}
