package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa/internal/console/ui"
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
	jobsNow
	Kind  string
	State string // "": those that failed and will be retried, or not
	Jobs  []jobs.Job
	pager
	Back  string // the address of this list, to return to
	Mail  string // where mail goes; "" on the page of the job queue
	Sends bool   // mail can be sent
}

// jobsNow is the part of the page that is kept up to date.
type jobsNow struct {
	Counts []jobs.Count
	Queues []jobs.QueueState
	Now    time.Time
}

func (c *Console) readJobsNow(ctx context.Context, r *Request) (v jobsNow, err error) {
	if v.Counts, err = c.Operations.JobCounts(ctx, r.Principal); err != nil {
		return v, err
	}
	v.Queues, err = c.Operations.Queues(ctx, r.Principal)
	v.Now = c.Master.Now()
	return v, err
}

// waitsLong is how long a job may wait before an operator should know.
const waitsLong = 2 * time.Minute

// isStuck reports whether the jobs of a queue are not worked off.
func isStuck(s jobs.QueueState, now time.Time) bool { return s.Age(now) >= waitsLong }

// stuckWords says that the jobs of a queue are not worked off, and what to do.
func stuckWords(s jobs.QueueState, now time.Time) string {
	text := fmt.Sprintf("Jobs of the queue %s are not worked off: the oldest has waited for %s. ", s.Queue, waitWords(s.Age(now)))
	switch {
	case s.Running > 0:
		return text + fmt.Sprintf("%s jobs of it run, so that no worker may be free. Look at what runs, or start another server.", countWords(s.Running, s.Running > jobs.MaxCounted))
	case s.Waiting == 0:
		return text + "Its time has come and nothing has made it ready, so that no server may be running jobs. Check that one is, and that its log has no errors of the component jobs."
	}
	return text + "None of it runs, so that no server may be running jobs. Check that one is, and that its log has no errors of the component jobs."
}

// waitWords returns a duration in the largest unit of which it has two.
func waitWords(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "less than a minute"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " hours"
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + " days"
}

// countWords returns a number, with a plus sign when there are more.
func countWords(n int64, more bool) string {
	if more {
		return ui.Thousands(min(n, jobs.MaxCounted)) + "+"
	}
	return ui.Thousands(n)
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
	if v.jobsNow, err = c.readJobsNow(ctx, r); err != nil {
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
		v, err := c.readJobsNow(ctx, r)
		return jobsPart(v), false, err
	})
}

// operatorMail shows the mails that wait or failed.
func (c *Console) operatorMail(w http.ResponseWriter, r *Request) error {
	counts, err := c.Operations.JobCounts(r.Context(), r.Principal)
	if err != nil {
		return err
	}
	v := jobsView{Mail: c.Mail.Describe(), Sends: c.Mail.Enabled(), Back: "/operator/mail"}
	kinds, err := c.Operations.JobKinds(r.Context(), r.Principal)
	if err != nil {
		return err
	}
	kinds = slices.DeleteFunc(kinds, func(kind string) bool { return !isMail(kind) })
	v.Counts = slices.DeleteFunc(counts, func(count jobs.Count) bool { return !slices.Contains(kinds, count.Kind) })
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
