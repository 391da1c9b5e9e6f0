package credits_test

import (
	"encoding/json"
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestParseAmount(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   string
		want credits.Amount
		err  error
		out  string // canonical form, if it differs from in
	}{
		{in: "0"},
		{in: "-0", out: "0"},
		{in: "1", want: credits.Credit},
		{in: "-1", want: -credits.Credit},
		{in: "12.5", want: 125_000},
		{in: "12.5000", want: 125_000, out: "12.5"},
		{in: "007", want: 70_000, out: "7"},
		{in: "0.0001", want: 1},
		{in: "-0.0001", want: -1},
		{in: "922337203685477.5807", want: math.MaxInt64},
		{in: "-922337203685477.5808", want: math.MinInt64},
		{in: "922337203685477.5808", err: credits.ErrAmountRange},
		{in: "-922337203685477.5809", err: credits.ErrAmountRange},
		{in: "99999999999999999999999999", err: credits.ErrAmountRange},
		{in: "", err: credits.ErrAmountSyntax},
		{in: "-", err: credits.ErrAmountSyntax},
		{in: "--1", err: credits.ErrAmountSyntax},
		{in: "+1", err: credits.ErrAmountSyntax},
		{in: " 1", err: credits.ErrAmountSyntax},
		{in: "1 ", err: credits.ErrAmountSyntax},
		{in: ".5", err: credits.ErrAmountSyntax},
		{in: "5.", err: credits.ErrAmountSyntax},
		{in: "1.2.3", err: credits.ErrAmountSyntax},
		{in: "1.-2", err: credits.ErrAmountSyntax},
		{in: "1.00001", err: credits.ErrAmountSyntax},
		{in: "1e3", err: credits.ErrAmountSyntax},
		{in: "1_000", err: credits.ErrAmountSyntax},
		{in: "1,5", err: credits.ErrAmountSyntax},
		{in: "0x10", err: credits.ErrAmountSyntax},
		{in: "NaN", err: credits.ErrAmountSyntax},
		{in: "Inf", err: credits.ErrAmountSyntax},
		{in: "٣", err: credits.ErrAmountSyntax},
	} {
		got, err := credits.ParseAmount(c.in)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("ParseAmount(%q) = %d, %v; want %d, %v", c.in, got, err, c.want, c.err)
		}
		if c.out == "" {
			c.out = c.in
		}
		if c.err == nil && got.String() != c.out {
			t.Errorf("ParseAmount(%q).String() = %q, want %q", c.in, got, c.out)
		}
	}
}

func TestAmountIsAStringInJSON(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(map[string]credits.Amount{"a": 125_000})
	testkit.Must(t, err)
	if want := `{"a":"12.5"}`; string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
	var a credits.Amount
	if err := json.Unmarshal([]byte(`12.5`), &a); err == nil {
		t.Error("a JSON number was accepted")
	}
}

func TestAmountRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := credits.Amount(rapid.Int64().Draw(t, "units"))
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got credits.Amount
		if err := json.Unmarshal(text, &got); err != nil || got != want {
			t.Fatalf("%d became %s became %d, %v", want, text, got, err)
		}
	})
}

// FuzzParseAmount checks that every accepted text has one canonical form with the same
// meaning.
func FuzzParseAmount(f *testing.F) {
	f.Add("12.5")
	f.Add("-0.0001")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := credits.ParseAmount(s)
		if err != nil {
			return
		}
		if again, err := credits.ParseAmount(a.String()); err != nil || again != a {
			t.Fatalf("%q is %d, its canonical form %q is %d, %v", s, a, a.String(), again, err)
		}
	})
}
