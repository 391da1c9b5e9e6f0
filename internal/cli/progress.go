package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Bar is one line on a terminal that shows the progress of a long run.
type Bar struct {
	terminal     io.Writer // nil without a terminal
	Things, Ills string    // the names of the counted items and of their faults
	Total        int64
	Done         int64
	Failed       int64
	started      time.Time
	drawn        time.Time
}

// newBar returns a bar that draws on terminal. It draws nothing if terminal is nil or the
// output is JSON. The bar contains only numbers and constant words.
func newBar(terminal *os.File, asJSON bool, things, ills string) Bar {
	b := Bar{Things: things, Ills: ills, started: time.Now()}
	if terminal != nil && !asJSON {
		b.terminal = terminal
	}
	return b
}

// terminalOf returns w if it is a terminal that supports redrawing, and otherwise nil.
func terminalOf(w io.Writer) *os.File {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return nil
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return f
}

// draw redraws the line, a few times a second at most.
func (b *Bar) draw() {
	now := time.Now()
	if b.Done < b.Total && now.Sub(b.drawn) < 100*time.Millisecond {
		return
	}
	b.drawn = now
	fmt.Fprint(b.terminal, "\r\x1b[K", b.Line(now.Sub(b.started)))
}

// Line returns the text of the line with the bar.
func (b *Bar) Line(elapsed time.Duration) string {
	const width = 30
	filled := int(width * b.Done / max(b.Total, 1))
	return fmt.Sprintf("[%s%s] %s", strings.Repeat("#", filled), strings.Repeat(".", width-filled), b.text(elapsed))
}

// text returns the progress, the rate and the remaining time.
func (b *Bar) text(elapsed time.Duration) string {
	rate := float64(b.Done) / max(elapsed.Seconds(), 0.001)
	left := time.Duration(float64(b.Total-b.Done) / max(rate, 0.001) * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("%d/%d %s, %d %s, %.1f/s, %s left", b.Done, b.Total, b.Things, b.Failed, b.Ills, rate, left)
}

// end moves the cursor below the bar.
func (b *Bar) end() {
	if b.terminal != nil && !b.drawn.IsZero() {
		fmt.Fprintln(b.terminal)
	}
}

// progress shows the progress of a run over the fleet: on a terminal a line that is
// redrawn, otherwise a line per store, or JSON.
type progress struct {
	Bar
	out    io.Writer
	asJSON bool
}

func newProgress(stdout io.Writer, terminal *os.File, asJSON bool) *progress {
	return &progress{Bar: newBar(terminal, asJSON, "stores", "failed"), out: stdout, asJSON: asJSON}
}

// Begin implements fleet.Observer.
func (p *progress) Begin(total int) { p.Total, p.started = int64(total), time.Now() }

// StoreEvent is the result for one store in the output.
type StoreEvent struct {
	Store      stoa.StoreID          `json:"store"`
	Slug       string                `json:"slug"`
	Engine     credential.EngineName `json:"engine"`
	State      fleet.State           `json:"state"`
	Canary     bool                  `json:"canary,omitempty"`
	From       tenantdb.Schema       `json:"from"`
	To         tenantdb.Schema       `json:"to"`
	Code       stoa.Code             `json:"code,omitempty"`
	Message    string                `json:"message,omitempty"`
	DurationMS int64                 `json:"durationMs"`
}

// Add implements fleet.Observer.
func (p *progress) Add(r fleet.Result) {
	p.Done++
	if r.State == fleet.Failed {
		p.Failed++
	}
	switch {
	case p.asJSON:
		_ = json.NewEncoder(p.out).Encode(StoreEvent{Store: r.Store.ID, Slug: r.Store.Slug, Engine: r.Store.Engine, State: r.State, Canary: r.Canary, From: r.Store.Schema, To: r.Schema,
			Code: r.Code, Message: r.Message, DurationMS: r.Duration.Milliseconds()}) // the reader may have closed the pipe; the run continues
	case p.terminal != nil && r.State != fleet.Pending:
		p.draw()
	default:
		p.print(r)
	}
}

func (p *progress) print(r fleet.Result) {
	line := fmt.Sprintf("%d/%d %s %s: %s", p.Done, p.Total, r.State, r.Store.Slug, version(r.Store.Schema))
	if r.Schema != r.Store.Schema {
		line += " → " + version(r.Schema)
	}
	if r.Code != "" {
		line += fmt.Sprintf(" (%s: %s)", r.Code, r.Message)
	}
	Printf(p.out, "%s\n", line)
}
