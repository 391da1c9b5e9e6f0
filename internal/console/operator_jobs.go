package console

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa/internal/jobs"
)

func (c *Console) operatorJobRoutes() []Route {
	return []Route{
		{Pattern: "GET /operator/jobs", RouteOptions: view(Operator), Handle: c.operatorJobs},
		{Pattern: "GET /operator/jobs/live", RouteOptions: stream(Operator), Handle: c.followJobs},
		{Pattern: "POST /operator/jobs/{id}/retry", RouteOptions: form(Operator), Handle: c.retryJob},
		{Pattern: "POST /operator/jobs/{id}/cancel", RouteOptions: form(Operator), Handle: c.cancelJob},
		{Pattern: "GET /operator/mail", RouteOptions: view(Operator), Handle: c.operatorMail},
	}
}

// jobsView fills the pages of the job queue and of the mail queue.
type jobsView struct {
	Counts []jobs.Count
	Kind   string
	State  string // "": those that failed and will be retried, or not
	Jobs   []jobs.Job
	pager
	Back  string // the address of this list, to return to
	Mail  string // where mail goes; "" on the page of the job queue
	Sends bool   // mail can be sent
}

// failedStates are the states of jobs that have failed.
var failedStates = []string{"retryable", "discarded"}

func (c *Console) readJobs(ctx context.Context, r *Request) (jobsView, error) {
	q := r.URL.Query()
	v := jobsView{Kind: q.Get("kind"), State: q.Get("state"), Back: "/operator/jobs?" + jobQuery(q).Encode()}
	f := jobs.Filter{States: failedStates, Cursor: q.Get("cursor")}
	if v.State != "" {
		f.States = []string{v.State}
	}
	if v.Kind != "" {
		f.Kinds = []string{v.Kind}
	}
	var err error
	if v.Counts, err = c.Operations.JobCounts(ctx, r.Principal); err != nil {
		return v, err
	}
	page, err := c.Operations.Jobs(ctx, r.Principal, f)
	v.Jobs, v.pager = page.Jobs, newPager(r, page.NextCursor)
	return v, err
}

// jobQuery returns the part of a query that filters jobs.
func jobQuery(q url.Values) url.Values {
	kept := url.Values{}
	for _, name := range []string{"kind", "state", "cursor"} {
		if q.Get(name) != "" {
			kept.Set(name, q.Get(name))
		}
	}
	return kept
}

func jobsURL(kind, state string) string {
	return "/operator/jobs?" + jobQuery(url.Values{"kind": {kind}, "state": {state}}).Encode()
}

func (c *Console) operatorJobs(w http.ResponseWriter, r *Request) error {
	v, err := c.readJobs(r.Context(), r)
	if err != nil {
		return err
	}
	return c.render(w, r, http.StatusOK, operatorFrame("jobs", "Jobs"), jobsPage(v))
}

func (c *Console) followJobs(w http.ResponseWriter, r *Request) error {
	return c.serveLive(w, r, nil, func(ctx context.Context) (templ.Component, bool, error) {
		counts, err := c.Operations.JobCounts(ctx, r.Principal)
		return jobCounts(counts), false, err
	})
}

// operatorMail shows the mails that wait or failed.
func (c *Console) operatorMail(w http.ResponseWriter, r *Request) error {
	counts, err := c.Operations.JobCounts(r.Context(), r.Principal)
	if err != nil {
		return err
	}
	v := jobsView{Mail: c.Mail.Describe(), Sends: c.Mail.Enabled(), Back: "/operator/mail"}
	var kinds []string
	for _, count := range counts {
		if !isMail(count.Kind) {
			continue
		}
		v.Counts = append(v.Counts, count)
		if !slices.Contains(kinds, count.Kind) {
			kinds = append(kinds, count.Kind)
		}
	}
	if len(kinds) > 0 {
		f := jobs.Filter{Kinds: kinds, States: slices.DeleteFunc(slices.Clone(jobs.States), func(s string) bool { return s == "completed" }), Cursor: r.URL.Query().Get("cursor")}
		page, err := c.Operations.Jobs(r.Context(), r.Principal, f)
		if err != nil {
			return err
		}
		v.Jobs, v.pager = page.Jobs, newPager(r, page.NextCursor)
	}
	return c.render(w, r, http.StatusOK, operatorFrame("mail", "Mail"), operatorMailPage(v))
}

// isMail reports whether jobs of a kind send mail.
func isMail(kind string) bool {
	return strings.Contains(kind, "mail") || strings.Contains(kind, "notify")
}

func (c *Console) retryJob(w http.ResponseWriter, r *Request) error {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return notFound()
	}
	job, err := c.Operations.RetryJob(r.Context(), r.Principal, id)
	if err != nil {
		return err
	}
	return redirect(w, r, nextPath(r.PostForm.Get("back"), "/operator/jobs"), "Job "+strconv.FormatInt(id, 10)+" ("+job.Kind+") runs again now.")
}

func (c *Console) cancelJob(w http.ResponseWriter, r *Request) error {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return notFound()
	}
	job, err := c.Operations.CancelJob(r.Context(), r.Principal, id)
	if err != nil {
		return err
	}
	return redirect(w, r, nextPath(r.PostForm.Get("back"), "/operator/jobs"), "Job "+strconv.FormatInt(id, 10)+" ("+job.Kind+") is cancelled. It can be retried.")
}
