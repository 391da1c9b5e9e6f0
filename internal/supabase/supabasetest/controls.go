package supabasetest

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"strings"
)

// controlPage lists the account's projects with a button for each action on a project.
// Each button sends a POST that curl can send as well.
var controlPage = template.Must(template.New("").Parse(`<!doctype html><html lang="en"><meta charset="utf-8">
<title>Stand-in for Supabase</title>
<h1>Stand-in for Supabase</h1>
<p>Nothing here is at Supabase. {{.Grants}} connections to the account are in force.</p>
<form method="post" action="/dev/revoke"><button>Revoke all connections</button></form>
<table><thead><tr><th>Project</th><th>Ref</th><th>Status</th><th></th></tr></thead>
{{range .Projects}}<tr><td>{{.Name}}</td><td><code>{{.Ref}}</code></td><td>{{.Status}}</td><td>
{{$ref := .Ref}}{{range $.Actions}}<form method="post" action="/dev/projects/{{$ref}}/{{.}}" style="display:inline"><button>{{.}}</button></form> {{end}}
</td></tr>
{{end}}</table></html>`))

// controlActions are the actions that a button can apply to a project.
var controlActions = []string{"pause", "resume", "remove"}

func (s *Server) controlRoutes() {
	s.route("GET /{$}", s.showControls)
	s.route("POST /dev/revoke", s.control(func(*http.Request) (string, *answer) {
		n := s.Grants()
		s.RevokeAll()
		return fmt.Sprintf("%d connections are revoked", n), nil
	}))
	for _, action := range controlActions {
		s.route("POST /dev/projects/{ref}/"+action, s.control(func(r *http.Request) (string, *answer) {
			return s.act(r.Context(), r.PathValue("ref"), action)
		}))
	}
}

func (s *Server) showControls(*http.Request) *answer {
	var b strings.Builder
	if err := controlPage.Execute(&b, object{"Projects": s.Projects(), "Grants": s.Grants(), "Actions": controlActions}); err != nil {
		panic(err) // the template and its plain values cannot fail
	}
	return reply(b.String())
}

// control runs do. Its answer redirects a browser to the page; for curl, the body
// describes the result.
func (s *Server) control(do func(*http.Request) (string, *answer)) func(*http.Request) *answer {
	return func(r *http.Request) *answer {
		done, refusal := do(r)
		if refusal != nil {
			return refusal
		}
		return &answer{status: http.StatusSeeOther, header: http.Header{"Location": {"/"}}, body: done + "\n"}
	}
}

// act applies an action that an owner can take at Supabase to a project.
func (s *Server) act(ctx context.Context, ref, action string) (done string, refusal *answer) {
	s.mu.Lock()
	p := s.find(ref)
	status := ""
	if p != nil {
		status = s.status(p)
	}
	s.mu.Unlock()
	switch {
	case p == nil:
		return "", problem(http.StatusNotFound, "there is no project %.40q", ref)
	case action == "remove":
		if err := s.Remove(context.WithoutCancel(ctx), ref); err != nil {
			return "", problem(http.StatusInternalServerError, "the project's database cannot be dropped: %v", err)
		}
	case action == "pause" && status == paused:
		return "", problem(http.StatusConflict, "the project is paused already")
	case action == "pause":
		s.SetStatus(ref, paused)
	case status != paused:
		return "", problem(http.StatusConflict, "the project is %s: only a paused one can be resumed", status)
	default:
		s.Restore(ref)
		return fmt.Sprintf("%s is being restored, which takes %s", ref, s.options.StartTime), nil
	}
	return fmt.Sprintf("%s: %s is done", ref, action), nil
}
