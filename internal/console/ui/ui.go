// Package ui holds the components of the console: the document around a page, forms,
// tables, notices, states, times and charts. Components get plain values and call no
// domain method. Text from users is escaped by templ; no component accepts HTML.
//
// No component has inline script or style, so that the strict
// Content-Security-Policy of the console holds.
package ui

import (
	"cmp"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Frame is what surrounds the content of a page.
type Frame struct {
	Title    string
	Store    *StoreLink // the store of the page, if any
	Nav      []NavItem  // the places of the section
	NavLabel string     // names the section to screen readers
	User     *UserLink  // nil when nobody is signed in
	Message  string     // what the last action did
	Sandbox  bool       // no money moves
	// Impersonation is set while an operator acts as the user.
	Impersonation *Impersonation
	// Wide removes the limit of the content's width, for tables of the operator.
	Wide bool
	// Narrow limits the content to the width of a form.
	Narrow bool
	Assets Assets
	// Refresh is how often a browser without JavaScript shows the page anew; 0: never.
	Refresh time.Duration
	// FormOrigin is another site that a form of the page leads to, such as a payment
	// page, as scheme and host.
	FormOrigin string
}

// Assets are the addresses of the frame's files.
type Assets struct {
	Stylesheet string
	Icon       string
	Scripts    []string
}

// StoreLink names a store.
type StoreLink struct {
	Name, Slug string
	Status     State
}

// UserLink names the signed-in user.
type UserLink struct {
	Name     string
	Email    string
	Operator bool
}

// NavItem is one place of a section.
type NavItem struct {
	Key, Label, URL string
	Icon            string
	Current         bool
	// Coming says that the place has no page yet.
	Coming bool
}

// Impersonation names the account that an operator acts for.
type Impersonation struct {
	Email   string
	Expires time.Time
}

// Form is the state of a form that is shown again: what was typed, and the faults.
type Form struct {
	Values url.Values
	Faults map[string]string // by field
	Fault  string            // of the whole form
	Code   int               // HTTP status; 0 for a form that was not sent yet
}

// Status returns the HTTP status of the page that shows the form.
func (f Form) Status() int {
	if f.Code == 0 {
		return http.StatusOK
	}
	return f.Code
}

// Value returns what was typed into a field, or initial in a form that was not sent.
func (f Form) Value(name, initial string) string {
	if f.Values == nil {
		return initial
	}
	return f.Values.Get(name)
}

// Checked reports whether a value of a field was chosen.
func (f Form) Checked(name, value string, initial bool) bool {
	if f.Values == nil {
		return initial
	}
	for _, v := range f.Values[name] {
		if v == value {
			return true
		}
	}
	return false
}

// Field describes one control of a form.
type Field struct {
	Name         string
	Label        string
	Type         string // of an input; empty: text
	Hint         string
	Autocomplete string
	Value        string // initial
	Placeholder  string
	InputMode    string
	Optional     bool
	Alternative  bool // another field may be filled in instead: not required, not marked as optional
	Checked      bool // initial, of a checkbox
	MaxLength    int
	Focus        bool // the first field to fill in
}

// input is the type attribute. What is no date or time is shown in a field for text: a field
// for a date or time would drop it.
func (f Field) input(form Form) string {
	layouts := map[string]string{"date": time.DateOnly, "datetime-local": "2006-01-02T15:04"}
	if value, layout := f.value(form), layouts[f.Type]; layout != "" && value != "" {
		if _, err := time.Parse(layout, value); err != nil {
			return "text"
		}
	}
	return cmp.Or(f.Type, "text")
}

// describedBy lists the ids of the field's hint and fault.
func (f Field) describedBy(form Form) string {
	var ids []string
	if f.Hint != "" {
		ids = append(ids, f.Name+"-hint")
	}
	if form.Faults[f.Name] != "" {
		ids = append(ids, f.Name+"-fault")
	}
	return strings.Join(ids, " ")
}

// value is the field's value. A password is never sent back.
func (f Field) value(form Form) string {
	if f.Type == "password" {
		return ""
	}
	return form.Value(f.Name, f.Value)
}

// Option is one choice of a Select.
type Option struct{ Value, Label string }

// Kind is the kind of a Notice.
type Kind string

// The kinds of a notice.
const (
	Info    Kind = "info"
	Success Kind = "success"
	Warning Kind = "warning"
	Danger  Kind = "danger"
)

// word names the kind for those who do not see its colour.
func (k Kind) word() string {
	switch k {
	case Success:
		return "Done"
	case Warning:
		return "Attention"
	case Danger:
		return "Problem"
	case Info:
	}
	return "Note"
}

// State is a state with its word, colour and icon: one vocabulary for all pages.
type State struct {
	Word string
	Kind Kind
	Icon string
}

// The states of stores.
var (
	Active         = State{Word: "Active", Kind: Success, Icon: "check"}
	SettingUp      = State{Word: "Setting up", Kind: Info, Icon: "clock"}
	NeedsAttention = State{Word: "Needs attention", Kind: Danger, Icon: "alert"}
	Suspended      = State{Word: "Suspended", Kind: Warning, Icon: "pause"}
	Deleting       = State{Word: "Deleting", Kind: Danger, Icon: "trash"}
	NoDatabase     = State{Word: "No database yet", Kind: Info, Icon: "clock"}
)

// RelativeTime describes t relative to now: "3 minutes ago", "in 2 days".
func RelativeTime(t, now time.Time) string {
	d := now.Sub(t)
	future := d < 0
	if future {
		d = -d
	}
	var text string
	switch {
	case d < 45*time.Second:
		if future {
			return "in a moment"
		}
		return "just now"
	case d < 90*time.Minute:
		text = plural(int(d.Round(time.Minute).Minutes()), "minute")
	case d < 36*time.Hour:
		text = plural(int(d.Round(time.Hour).Hours()), "hour")
	case d < 60*24*time.Hour:
		text = plural(int(d.Hours()/24+0.5), "day")
	default:
		return t.UTC().Format("2 January 2006")
	}
	if future {
		return "in " + text
	}
	return text + " ago"
}

func plural(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return strconv.Itoa(n) + " " + unit + "s"
}
