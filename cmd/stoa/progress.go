package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/fleet"
	"github.com/stoahq/stoa/tenantdb"
)

// progress shows how a run over the fleet goes: one line that changes on a
// terminal, a line per store elsewhere, JSON for programs.
type progress struct {
	out      io.Writer
	terminal io.Writer // nil unless there is one
	asJSON   bool
	total    int
	done     int
	failed   int
	started  time.Time
	drawn    time.Time
}

func newProgress(stdout, stderr io.Writer, asJSON bool) *progress {
	p := &progress{out: stdout, asJSON: asJSON}
	if f, ok := stderr.(*os.File); ok && !asJSON {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb" {
			p.terminal = stderr
		}
	}
	return p
}

func (p *progress) begin(total int) { p.total, p.started = total, time.Now() }

// storeEvent is what became of a store, as printed.
type storeEvent struct {
	Store      stoa.StoreID        `json:"store"`
	Slug       string              `json:"slug"`
	Engine     tenantdb.EngineName `json:"engine"`
	State      fleet.State         `json:"state"`
	Canary     bool                `json:"canary,omitempty"`
	From       tenantdb.Schema     `json:"from"`
	To         tenantdb.Schema     `json:"to"`
	Code       stoa.Code           `json:"code,omitempty"`
	Message    string              `json:"message,omitempty"`
	DurationMS int64               `json:"durationMs"`
}

func (p *progress) add(r fleet.Result) {
	p.done++
	if r.State == fleet.Failed {
		p.failed++
	}
	switch {
	case p.asJSON:
		_ = json.NewEncoder(p.out).Encode(storeEvent{r.Store.ID, r.Store.Slug, r.Store.Engine, r.State, r.Canary, r.Store.Schema, r.Schema,
			r.Code, r.Message, r.Duration.Milliseconds()}) // whoever reads may be gone; the run goes on
	case p.terminal != nil && r.State != fleet.Pending:
		p.draw()
	default:
		p.print(r)
	}
}

func (p *progress) print(r fleet.Result) {
	line := fmt.Sprintf("%d/%d %s %s: %s", p.done, p.total, r.State, r.Store.Slug, version(r.Store.Schema))
	if r.Schema != r.Store.Schema {
		line += " → " + version(r.Schema)
	}
	if r.Code != "" {
		line += fmt.Sprintf(" (%s: %s)", r.Code, r.Message)
	}
	fmt.Fprintln(p.out, line)
}

// draw renews the line on the terminal, a few times a second at most.
func (p *progress) draw() {
	now := time.Now()
	if p.done < p.total && now.Sub(p.drawn) < 100*time.Millisecond {
		return
	}
	p.drawn = now
	fmt.Fprint(p.terminal, "\r\x1b[K", p.bar(now.Sub(p.started)))
}

// bar is the line: how far, how fast, how long still.
func (p *progress) bar(elapsed time.Duration) string {
	const width = 30
	filled := width * p.done / max(p.total, 1)
	rate := float64(p.done) / max(elapsed.Seconds(), 0.001)
	left := time.Duration(float64(p.total-p.done) / max(rate, 0.001) * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("[%s%s] %d/%d stores, %d failed, %.1f/s, %s left",
		strings.Repeat("#", filled), strings.Repeat(".", width-filled), p.done, p.total, p.failed, rate, left)
}

// end leaves the cursor below what was drawn.
func (p *progress) end() {
	if p.terminal != nil && !p.drawn.IsZero() {
		fmt.Fprintln(p.terminal)
	}
}
