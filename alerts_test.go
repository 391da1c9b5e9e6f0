package stoa_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// alertRules are the parts of Prometheus's rule file that a person has to find again.
type alertRules struct {
	Groups []struct {
		Rules []alertRule
	}
}

type alertRule struct {
	Alert       string
	Expr        string
	Annotations map[string]string
}

func readAlerts(t *testing.T) (alerts []alertRule) {
	t.Helper()
	var rules alertRules
	if err := yaml.Unmarshal([]byte(readText(t, "deploy/prometheus/alerts.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		alerts = append(alerts, g.Rules...)
	}
	if len(alerts) < 15 {
		t.Fatalf("alerts.yaml has only %d alerts", len(alerts))
	}
	return alerts
}

func readText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestEachAlertHasASection compares the alerts with docs/runbook.md: the link of an
// alert leads to a section, and the section names the alert.
func TestEachAlertHasASection(t *testing.T) {
	sections := map[string]string{} // by the anchor that GitHub gives them
	for _, s := range strings.Split(readText(t, "docs/runbook.md"), "\n## ")[1:] {
		title, body, _ := strings.Cut(s, "\n")
		anchor := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(title), "")
		sections[strings.ReplaceAll(anchor, " ", "-")] = body
	}
	named := map[string]bool{}
	for _, body := range sections {
		for _, m := range regexp.MustCompile("`(Stoa[A-Z][A-Za-z]+)`").FindAllStringSubmatch(body, -1) {
			named[m[1]] = true
		}
	}
	for _, a := range readAlerts(t) {
		_, anchor, _ := strings.Cut(a.Annotations["runbook_url"], "docs/runbook.md#")
		body, found := sections[anchor]
		if !found || !strings.Contains(body, "`"+a.Alert+"`") {
			t.Errorf("%s: no section %q of docs/runbook.md names it", a.Alert, anchor)
		}
		if a.Annotations["summary"] == "" {
			t.Errorf("%s has no summary", a.Alert)
		}
		delete(named, a.Alert)
	}
	for name := range named {
		t.Errorf("docs/runbook.md names the alert %s, which does not exist", name)
	}
}

// TestEachAlertIsTested checks that each alert has values at which it fires, and
// values at which it does not. `make alerts-check` runs them.
func TestEachAlertIsTested(t *testing.T) {
	var file struct {
		Tests []struct {
			Name  string
			Exprs []struct {
				Expr    string
				Samples []struct{ Value float64 } `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		}
	}
	if err := yaml.Unmarshal([]byte(readText(t, "deploy/prometheus/alerts_test.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	tested := map[string][]float64{}
	for _, test := range file.Tests {
		for _, e := range test.Exprs {
			m := regexp.MustCompile(`^count\(ALERTS\{alertname="([A-Za-z]+)",alertstate="firing"\}\) or vector\(0\)$`).FindStringSubmatch(e.Expr)
			if m == nil || len(e.Samples) != 1 {
				t.Errorf("%s: %s does not count an alert that fires", test.Name, e.Expr)
				continue
			}
			tested[m[1]] = append(tested[m[1]], e.Samples[0].Value)
		}
	}
	for _, a := range readAlerts(t) {
		if !slices.Contains(tested[a.Alert], 0) || !slices.Contains(tested[a.Alert], 1) {
			t.Errorf("%s is tested with the results %v: 0 and 1 are needed", a.Alert, tested[a.Alert])
		}
	}
}

// metricNames matches what can be a metric in an expression, and the words around it.
var metricNames = regexp.MustCompile(`\b(?:stoa|process|go)_[a-z_]+\b`)

// runtimeMetrics are those of the Go runtime and of the process that the alerts and the
// dashboard use; docs/metrics.md does not list them one by one.
var runtimeMetrics = []string{"go_goroutines", "process_open_fds", "process_max_fds", "process_cpu_seconds_total",
	"process_resident_memory_bytes", "process_start_time_seconds"}

// unknownMetrics returns the metrics of an expression that docs/metrics.md does not
// list, which internal/app compares with the code.
func unknownMetrics(t *testing.T, expr string) (unknown []string) {
	t.Helper()
	types := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(stoa_[a-z_]+)`[^|]*\\| (\\w+) \\|").FindAllStringSubmatch(readText(t, "docs/metrics.md"), -1) {
		types[m[1]] = m[2]
	}
	expr = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`).ReplaceAllString(expr, `""`) // the values of labels
	for _, name := range metricNames.FindAllString(expr, -1) {
		base := regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(name, "")
		switch {
		case slices.Contains(runtimeMetrics, name):
		case types[name] != "" && types[name] != "histogram":
		case base != name && types[base] == "histogram":
		default:
			unknown = append(unknown, name)
		}
	}
	return unknown
}

func TestAlertsUseMetricsThatExist(t *testing.T) {
	for _, a := range readAlerts(t) {
		if unknown := unknownMetrics(t, a.Expr); unknown != nil {
			t.Errorf("%s uses %v", a.Alert, unknown)
		}
		if !metricNames.MatchString(a.Expr) && !strings.Contains(a.Expr, `up{job="stoa"}`) {
			t.Errorf("%s: no metric found in %s", a.Alert, a.Expr)
		}
	}
	if got := unknownMetrics(t, `rate(stoa_http_request_duration_seconds[5m]) + stoa_no_such_thing`); len(got) != 2 {
		t.Errorf("of a histogram without a suffix and an invented metric %v were found", got)
	}
}

// TestDashboard checks that each panel queries metrics that exist, and that the
// dashboard shows every metric of docs/metrics.md.
func TestDashboard(t *testing.T) {
	text := readText(t, "deploy/grafana/stoa.json")
	var board struct {
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(text), &board); err != nil {
		t.Fatal(err)
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range board.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		if (len(p.Targets) > 0) == (p.Type == "row") {
			t.Errorf("%s has %d queries", p.Title, len(p.Targets))
		}
		for _, q := range p.Targets {
			if unknown := unknownMetrics(t, q.Expr); unknown != nil {
				t.Errorf("%s uses %v", p.Title, unknown)
			}
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other, taken := cells[at]; taken || at[0] >= 24 {
					t.Fatalf("%s overlaps %q or the edge", p.Title, other)
				}
				cells[at] = p.Title
			}
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(stoa_[a-z_]+)`").FindAllStringSubmatch(readText(t, "docs/metrics.md"), -1) {
		if !strings.Contains(text, m[1]) {
			t.Errorf("the dashboard does not show %s", m[1])
		}
	}
}
