package ui

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Chart is a chart of values over labels, mostly days. Values that are missing, infinite
// or no number leave a gap.
type Chart struct {
	Title  string
	Unit   string   // of the values, such as "credits"
	Labels []string // one for each value
	Series []Series
	// Columns draws columns from zero instead of lines.
	Columns bool
}

// Series is one line of a chart, or one column at each label.
type Series struct {
	Name   string
	Values []float64
}

// The geometry of a chart, in units of its viewBox.
const (
	chartWidth, chartHeight = 640.0, 240.0
	chartLeft, chartRight   = 68.0, 12.0
	chartTop, chartBottom   = 14.0, 34.0
	chartTicks, chartLabels = 4, 6
	maxAxisLabel            = 10
	maxChartLabel           = 200 // characters of a label in the table
	maxChartPoints          = 1000
)

// plot is a chart with coordinates.
type plot struct {
	Ticks  []mark
	Labels []mark
	Zero   string // y of the value 0
	Lines  []line
	Bars   []bar
}

// mark is a text at a position of an axis.
type mark struct {
	At, Text string
	Anchor   string
	Minor    bool // left out on narrow screens
}

type line struct {
	Class string
	Path  string
	Dots  []dot // points without neighbours, of which a path shows nothing
}

type dot struct{ X, Y string }

type bar struct {
	Class, X, Y, Width, Height string
	Title                      string
}

// Empty reports whether there is no value to draw.
func (c Chart) Empty() bool {
	for _, s := range c.Series {
		for _, v := range s.Values {
			if finite(v) {
				return false
			}
		}
	}
	return true
}

// newest returns the chart with at most maxChartPoints labels, the last ones, and one
// value of each series for each.
func (c Chart) newest() Chart {
	n := len(c.Labels)
	from := max(0, n-maxChartPoints)
	out := c
	out.Labels, out.Series = make([]string, 0, n-from), make([]Series, len(c.Series))
	for _, l := range c.Labels[from:] {
		out.Labels = append(out.Labels, cut(l, maxChartLabel))
	}
	for i, s := range c.Series {
		values := make([]float64, n-from)
		for j := range values {
			values[j] = math.NaN()
			if from+j < len(s.Values) {
				values[j] = s.Values[from+j]
			}
		}
		out.Series[i] = Series{Name: cut(s.Name, maxChartLabel), Values: values}
	}
	return out
}

// plot computes the coordinates. c has one value of each series for each label.
func (c Chart) plot() plot {
	low, high := c.bounds()
	ticks := axisTicks(low, high, chartTicks)
	low, high = min(low, ticks[0]), max(high, ticks[len(ticks)-1])
	y := scale(low, high, chartHeight-chartBottom, chartTop)
	p := plot{Zero: coordinate(y(min(max(0, low), high)))}
	for _, t := range ticks {
		p.Ticks = append(p.Ticks, mark{At: coordinate(y(t)), Text: CompactNumber(t)})
	}
	slot := (chartWidth - chartLeft - chartRight) / float64(max(1, len(c.Labels)))
	x := func(i int) float64 { return chartLeft + slot*(float64(i)+0.5) }
	p.Labels = c.axisLabels(x)
	for i, s := range c.Series {
		class := seriesClass(i)
		if c.Columns {
			p.Bars = append(p.Bars, c.bars(s, class, i, slot, x, y)...)
		} else {
			p.Lines = append(p.Lines, newLine(class, s.Values, x, y))
		}
	}
	return p
}

// bounds returns the range of the values' axis, which contains zero.
func (c Chart) bounds() (low, high float64) {
	for _, s := range c.Series {
		for _, v := range s.Values {
			if finite(v) {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	return low, high
}

// axisLabels returns the labels that stand below the chart: a few, evenly spread, the
// last one among them.
func (c Chart) axisLabels(x func(int) float64) (out []mark) {
	n := len(c.Labels)
	step := max(1, (n+chartLabels-1)/chartLabels)
	for i := (n - 1) % step; i < n; i += step {
		m := mark{At: coordinate(x(i)), Text: cut(c.Labels[i], maxAxisLabel), Anchor: "middle", Minor: (n-1-i)/step%2 == 1}
		if i == n-1 && n > chartLabels {
			m.At, m.Anchor = coordinate(chartWidth-chartRight), "end"
		}
		out = append(out, m)
	}
	return out
}

// bars returns the columns of a series. Those of several series stand side by side.
func (c Chart) bars(s Series, class string, index int, slot float64, x func(int) float64, y func(float64) float64) (out []bar) {
	width := slot * 0.8 / float64(len(c.Series))
	for i, v := range s.Values {
		if !finite(v) || v == 0 {
			continue
		}
		top, bottom := y(max(v, 0)), y(min(v, 0))
		out = append(out, bar{
			Class: class, X: coordinate(x(i) - slot*0.4 + width*float64(index)), Y: coordinate(top), Width: coordinate(width),
			Height: coordinate(max(bottom-top, 1)), Title: c.Labels[i] + ", " + s.Name + ": " + ExactNumber(v),
		})
	}
	return out
}

// newLine joins the values. A gap ends one stroke and begins the next.
func newLine(class string, values []float64, x func(int) float64, y func(float64) float64) line {
	l := line{Class: class}
	var path strings.Builder
	for i, v := range values {
		if !finite(v) {
			continue
		}
		before, after := i > 0 && finite(values[i-1]), i+1 < len(values) && finite(values[i+1])
		px, py := coordinate(x(i)), coordinate(y(v))
		switch {
		case before:
			path.WriteString("L" + px + " " + py)
		case after:
			path.WriteString("M" + px + " " + py)
		default:
			l.Dots = append(l.Dots, dot{X: px, Y: py})
		}
	}
	l.Path = path.String()
	return l
}

// axisTicks returns about n+1 round numbers that enclose low to high. There are at least
// two.
func axisTicks(low, high float64, n int) []float64 {
	// Halved first: the difference of two huge values has no number.
	span := (high/2 - low/2) / float64(n) * 2
	if span <= 0 {
		return []float64{low, low + 1}
	}
	magnitude := math.Pow(10, math.Floor(math.Log10(span)))
	step := 10 * magnitude
	for _, s := range []float64{1, 2, 5} {
		if span <= s*magnitude*(1+1e-9) {
			step = s * magnitude
			break
		}
	}
	if magnitude == 0 || !finite(step) || !finite(math.Ceil(high/step)*step) || !finite(math.Floor(low/step)*step) {
		return []float64{low, high}
	}
	var out []float64
	for k := math.Floor(low/step + 1e-9); k <= math.Ceil(high/step-1e-9); k++ {
		out = append(out, k*step)
	}
	return out
}

// scale maps low to from and high to to.
func scale(low, high, from, to float64) func(float64) float64 {
	// Halved: the difference of two huge values has no number.
	span := high/2 - low/2
	return func(v float64) float64 {
		if span <= 0 {
			return (from + to) / 2
		}
		return from + (v/2-low/2)/span*(to-from)
	}
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// coordinate formats a coordinate with one decimal.
func coordinate(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

// cut shortens a text to n characters.
func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// CompactNumber formats a number for an axis: 950, 1.5k, 20M, 3B, 1e15.
func CompactNumber(v float64) string {
	abs := math.Abs(v)
	if !finite(v) {
		return "–"
	}
	for _, unit := range []struct {
		from float64
		name string
	}{{1e15, ""}, {1e12, "T"}, {1e9, "B"}, {1e6, "M"}, {1e3, "k"}} {
		switch {
		case abs < unit.from:
		case unit.name == "":
			return minus(strings.Replace(strconv.FormatFloat(v, 'g', 3, 64), "e+", "e", 1))
		default:
			return minus(trimmed(v/unit.from, 2)) + unit.name
		}
	}
	if abs > 0 && abs < 1e-3 {
		return minus(strconv.FormatFloat(v, 'g', 2, 64))
	}
	return minus(trimmed(v, 3))
}

// ExactNumber formats a number with separated thousands and at most 4 decimals.
func ExactNumber(v float64) string {
	if !finite(v) {
		return "–"
	}
	if math.Abs(v) >= 1e15 {
		return minus(strconv.FormatFloat(v, 'g', -1, 64))
	}
	text := trimmed(math.Abs(v), 4)
	whole, decimals, found := strings.Cut(text, ".")
	n, _ := strconv.ParseInt(whole, 10, 64)
	out := Thousands(n)
	if found {
		out += "." + decimals
	}
	if v < 0 && text != "0" {
		out = "−" + out
	}
	return out
}

// trimmed formats v with at most n decimals.
func trimmed(v float64, n int) string {
	text := strconv.FormatFloat(v, 'f', n, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	if text == "-0" {
		return "0"
	}
	return text
}

// minus sets the minus sign of print.
func minus(s string) string {
	if rest, found := strings.CutPrefix(s, "-"); found {
		return "−" + rest
	}
	return s
}

// summary describes the chart to those who do not see it.
func (c Chart) summary() string {
	text := cut(c.Title, maxChartLabel)
	if c.Unit != "" {
		text += " in " + cut(c.Unit, maxChartLabel)
	}
	if n := len(c.Labels); n > 0 {
		text += fmt.Sprintf(", from %s to %s", c.Labels[0], c.Labels[n-1])
	}
	return text + ". The table below has the values."
}

// seriesClass returns the class of the i-th series, which gives it its colour and stroke.
func seriesClass(i int) string { return "series" + strconv.Itoa(i%4+1) }
