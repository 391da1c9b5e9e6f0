package app

import (
	"context"
	"sync"
	"time"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console"
	"github.com/stoahq/stoa/internal/doctor"
)

// systemDoctor runs the checks of package doctor for operators and keeps the last
// findings. It implements console.Doctor.
type systemDoctor struct {
	app *App

	running sync.Mutex // one run at a time
	mu      sync.Mutex
	checks  []console.Check
	at      time.Time
}

// readDoctor is the access that the audit log records.
const readDoctor authz.Action = "system:check"

// Examine implements console.Doctor. A call during a run waits and uses its findings.
func (d *systemDoctor) Examine(ctx context.Context, p authz.Principal) error {
	if err := authz.CheckOperator(ctx, d.app.Master, p, readDoctor); err != nil {
		return err
	}
	asked := time.Now()
	d.running.Lock()
	defer d.running.Unlock()
	d.mu.Lock()
	fresh := d.at.After(asked)
	d.mu.Unlock()
	if fresh {
		return nil
	}
	findings, _ := doctor.Examine(ctx, d.app.Cfg, d.app.Master)
	checks := make([]console.Check, len(findings))
	for i, f := range findings {
		checks[i] = console.Check{Name: f.Check, OK: f.OK, Warning: f.Warning, Detail: f.Detail, Remedy: f.Remedy}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.checks, d.at = checks, time.Now()
	return nil
}

// Last implements console.Doctor.
func (d *systemDoctor) Last(ctx context.Context, p authz.Principal) ([]console.Check, time.Time, error) {
	if err := authz.CheckOperator(ctx, d.app.Master, p, readDoctor); err != nil {
		return nil, time.Time{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.checks, d.at, nil
}
