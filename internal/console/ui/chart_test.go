package ui

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa/internal/testkit"
)

func TestAxisTicks(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		low, high float64
		want      []float64
	}{
		"nothing":  {0, 0, []float64{0, 1}},
		"a few":    {0, 7, []float64{0, 2, 4, 6, 8}},
		"hundreds": {0, 950, []float64{0, 500, 1000}},
		"fraction": {0, 0.0004, []float64{0, 0.0001, 0.0002, 0.0003, 0.0004}},
		"negative": {-30, 80, []float64{-50, 0, 50, 100}},
		"huge":     {-math.MaxFloat64, math.MaxFloat64, []float64{-math.MaxFloat64, math.MaxFloat64}},
		"tiny":     {0, math.SmallestNonzeroFloat64, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := axisTicks(test.low, test.high, chartTicks)
			if len(got) < 2 || got[0] > test.low || got[len(got)-1] < test.high || len(got) > 3*chartTicks {
				t.Fatalf("ticks %v do not enclose %v to %v", got, test.low, test.high)
			}
			if test.want != nil && !slices.EqualFunc(got, test.want, func(a, b float64) bool { return math.Abs(a-b) <= math.Abs(b)*1e-9 }) {
				t.Errorf("ticks %v, want %v", got, test.want)
			}
		})
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		value          float64
		compact, exact string
	}{
		{0, "0", "0"},
		{math.Copysign(0, -1), "0", "0"},
		{7, "7", "7"},
		{-0.5, "−0.5", "−0.5"},
		{0.0001, "0.0001", "0.0001"},
		{999, "999", "999"},
		{1500, "1.5k", "1\u2009500"},
		{-20e6, "−20M", "−20\u2009000\u2009000"},
		{3e9, "3B", "3\u2009000\u2009000\u2009000"},
		{1e15, "1e15", "1e+15"},
		{math.MaxFloat64, "1.8e308", "1.7976931348623157e+308"},
		{math.NaN(), "–", "–"},
		{math.Inf(1), "–", "–"},
	} {
		if diff := cmp.Diff([]string{test.compact, test.exact}, []string{CompactNumber(test.value), ExactNumber(test.value)}); diff != "" {
			t.Errorf("%v: %s", test.value, diff)
		}
	}
}

// Whatever the values, the drawing is well-formed, stays inside its viewBox and has
// no style attribute.
func TestCharts(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("<script>\"'&\u202e", 500)
	for name, chart := range map[string]Chart{
		"nothing":         {Title: "None"},
		"zero":            {Title: "Zero", Labels: []string{"a"}, Series: []Series{{"s", []float64{0}}}},
		"one value":       {Title: "One", Labels: []string{"a"}, Series: []Series{{"s", []float64{5}}}},
		"negative":        {Title: "Debt", Labels: []string{"a", "b", "c"}, Series: []Series{{"s", []float64{5, -10, 3}}}},
		"huge":            {Title: "Huge", Labels: []string{"a", "b"}, Series: []Series{{"s", []float64{-math.MaxFloat64, math.MaxFloat64}}}},
		"tiny":            {Title: "Tiny", Labels: []string{"a", "b"}, Series: []Series{{"s", []float64{0, math.SmallestNonzeroFloat64}}}},
		"gaps":            {Title: "Gaps", Labels: []string{"a", "b", "c"}, Series: []Series{{"s", []float64{1, math.NaN(), math.Inf(1)}}}},
		"fewer values":    {Title: "Fewer", Labels: []string{"a", "b", "c"}, Series: []Series{{"s", []float64{1}}, {"t", nil}}},
		"hostile texts":   {Title: long, Unit: long, Labels: []string{long, long}, Series: []Series{{long, []float64{1, 2}}, {long, []float64{3, 4}}}},
		"too many points": {Title: "Many", Labels: make([]string, 5000), Series: []Series{{"s", slices.Repeat([]float64{1}, 5000)}}},
	} {
		for _, columns := range []bool{false, true} {
			chart.Columns = columns
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var b strings.Builder
				testkit.Must(t, ChartFigure(chart).Render(t.Context(), &b))
				checkDrawing(t, b.String(), chartWidth, chartHeight)
				if len(b.String()) > 400_000 {
					t.Errorf("%d bytes", b.Len())
				}
			})
		}
	}
}

// checkDrawing reads markup as XML and checks its coordinates.
func checkDrawing(t *testing.T, markup string, width, height float64) {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(markup))
	decoder.Entity = xml.HTMLEntity
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		element, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if element.Name.Local == "script" {
			t.Fatal("a script")
		}
		for _, a := range element.Attr {
			checkAttribute(t, a, width, height)
		}
	}
}

func checkAttribute(t *testing.T, a xml.Attr, width, height float64) {
	t.Helper()
	limit := map[string]float64{"x": width, "x1": width, "x2": width, "cx": width, "width": width, "y": height, "y1": height, "y2": height, "cy": height, "height": height}
	if strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "style" {
		t.Errorf("attribute %s", a.Name.Local)
	}
	if most, ok := limit[a.Name.Local]; ok {
		var v float64
		testkit.Must(t, xml.Unmarshal([]byte("<v>"+a.Value+"</v>"), &v))
		if !finite(v) || v < 0 || v > most {
			t.Errorf("%s = %s is outside the drawing", a.Name.Local, a.Value)
		}
	}
}
