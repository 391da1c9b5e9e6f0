package console

import (
	"context"
	"net/http"
	"time"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
)

// Check is the result of one check of the platform.
type Check struct {
	Name    string
	OK      bool
	Warning bool // the platform works without it
	Detail  string
	Remedy  string // of a fault or a warning
}

// Doctor checks the platform, as the command doctor does. Examine fails with forbidden
// unless the caller is an operator. It runs once at a time.
type Doctor interface {
	Examine(ctx context.Context, p authz.Principal) error
	// Last returns the results of the last run of this process, and when it ended; the
	// zero time before the first.
	Last(ctx context.Context, p authz.Principal) ([]Check, time.Time, error)
}

func (c *Console) operatorSystemRoutes() []Route {
	return []Route{
		{Pattern: "GET /operator/system", RouteOptions: view(Operator), Handle: c.operatorSystem},
		{Pattern: "POST /operator/system/check", RouteOptions: databaseForm(Operator), Handle: c.checkSystem},
	}
}

// systemView fills the page of the platform's own health.
type systemView struct {
	Checks []Check
	At     time.Time
	Faults int
}

func (c *Console) operatorSystem(w http.ResponseWriter, r *Request) error {
	var v systemView
	var err error
	if v.Checks, v.At, err = c.Doctor.Last(r.Context(), r.Principal); err != nil {
		return err
	}
	for _, check := range v.Checks {
		if !check.OK {
			v.Faults++
		}
	}
	return c.render(w, r, http.StatusOK, operatorFrame("system", "System"), operatorSystemPage(v))
}

func (c *Console) checkSystem(w http.ResponseWriter, r *Request) error {
	if err := c.Doctor.Examine(r.Context(), r.Principal); err != nil {
		return err
	}
	return redirect(w, r, "/operator/system", "")
}

// checkState returns the result of a check in the console's vocabulary.
func checkState(c Check) ui.State {
	switch {
	case c.Warning:
		return ui.State{Word: "Warning", Kind: ui.Warning, Icon: "alert"}
	case c.OK:
		return ui.State{Word: "In order", Kind: ui.Success, Icon: "check"}
	}
	return ui.State{Word: "Fault", Kind: ui.Danger, Icon: "alert"}
}
