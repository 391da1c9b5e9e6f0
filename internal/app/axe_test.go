package app_test

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// axe-core finds faults of accessibility in a page. It is only used here, and not part
// of the platform; its licence (MPL 2.0) is beside it.
//
//go:embed testdata/axe/axe.min.js
var axeScript string

// axeChecksum is the SHA-256 of axe.min.js in the npm package axe-core 4.14.1.
const axeChecksum = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"

func TestAxeIsUnchanged(t *testing.T) {
	t.Parallel()
	if sum := sha256.Sum256([]byte(axeScript)); hex.EncodeToString(sum[:]) != axeChecksum {
		t.Errorf("axe.min.js has the checksum %x", sum)
	}
}

// axeViolation is a rule that a page violates.
type axeViolation struct {
	ID     string `json:"id"`
	Impact string `json:"impact"`
	Help   string `json:"help"`
	Nodes  []struct {
		HTML           string `json:"html"`
		FailureSummary string `json:"failureSummary"`
	} `json:"nodes"`
}

func (v axeViolation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s): %s", v.ID, v.Impact, v.Help)
	for i, n := range v.Nodes {
		if i == 3 {
			fmt.Fprintf(&b, "\n\tand %d more", len(v.Nodes)-i)
			break
		}
		fmt.Fprintf(&b, "\n\t%.300s\n\t%s", n.HTML, strings.ReplaceAll(n.FailureSummary, "\n", "\n\t"))
	}
	return b.String()
}

// axe returns the rules that the current page violates.
func (c *chromium) axe() []axeViolation {
	c.t.Helper()
	if !evaluate[bool](c, `typeof axe === "object"`) {
		evaluate[bool](c, axeScript+`;true`)
	}
	return evaluate[[]axeViolation](c, `axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations.map(
		v => ({id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.map(n => ({html: n.html, failureSummary: n.failureSummary}))})))`)
}

// inspect returns the faults that can be seen on the current page with every device:
// violations of axe's rules, a page that is wider than its window, and a navigation that
// hides the current place. They are told by their text, with the devices.
func (c *chromium) inspect() map[string][]string {
	c.t.Helper()
	faults := map[string][]string{}
	for _, d := range devices {
		c.emulate(d)
		for _, v := range c.axe() {
			faults[v.String()] = append(faults[v.String()], d.name)
		}
		wide := evaluate[string](c, `(() => {
			const width = document.documentElement.clientWidth
			if (document.documentElement.scrollWidth <= width) return ""
			const e = [...document.body.querySelectorAll("*")].find(e => e.getBoundingClientRect().right > width + 1 && !e.closest(".scroll, nav"))
			return e ? e.outerHTML.slice(0, 300) : "something"
		})()`)
		if wide != "" {
			text := "the page is wider than its window: " + wide
			faults[text] = append(faults[text], d.name)
		}
		hidden := evaluate[string](c, `[...document.querySelectorAll("nav [aria-current]")].filter(e => {
			const link = e.getBoundingClientRect(), place = e.closest("nav").getBoundingClientRect()
			return link.left < place.left - 1 || link.right > place.right + 1 || link.top < place.top - 1 || link.bottom > place.bottom + 1
		}).map(e => e.textContent.trim()).join(", ")`)
		if hidden != "" {
			text := "the navigation hides the current place: " + hidden
			faults[text] = append(faults[text], d.name)
		}
	}
	c.emulate(desktop)
	return faults
}

// faultList collects faults of many pages, which often share one.
type faultList map[string][]string // fault → pages

func (l faultList) add(fault, where string) { l[fault] = append(l[fault], where) }

// report fails the test with each fault and the pages that have it.
func (l faultList) report(t *testing.T) {
	t.Helper()
	for _, fault := range slices.Sorted(maps.Keys(l)) {
		pages := l[fault]
		more := ""
		if len(pages) > 8 {
			more = fmt.Sprintf(" and %d more", len(pages)-8)
			pages = pages[:8]
		}
		t.Errorf("%s\n\ton %s%s", fault, strings.Join(pages, ", "), more)
	}
}
