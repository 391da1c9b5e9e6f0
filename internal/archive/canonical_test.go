package archive

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestCanonicalJSON(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{` { "b" : 1 , "a" : [ true , null ] } `, `{"a":[true,null],"b":1}`},
		{`{"a":1,"a":2}`, `{"a":2}`},
		{`"\u00e9\u0041\/\n"`, `"éA/\u000a"`},
		{`"😀"`, `"😀"`},
		{`"\ud83d\ude00"`, `"😀"`},
		{`"\\ud83d"`, `"\\ud83d"`},
		{`"<&>` + "\u2028" + `"`, `"<&>` + "\u2028" + `"`},
		{`"\u0000"`, `"\u0000"`},
		{`[1.50,15e-1,1.5,0.15E+1]`, `[15e-1,15e-1,15e-1,15e-1]`},
		{`[-0,0.000,-0e5,0]`, `[0,0,0,0]`},
		{`[100,1e2,1E+2,100.0]`, `[100,100,100,100]`},
		{`[18446744073709551615,1e300]`, `[18446744073709551615,1e300]`},
		{`0.1234567890123456789012345`, `1234567890123456789012345e-25`},
		{`-12345678901234567890123`, `-12345678901234567890123e0`},
	} {
		got, err := canonicalJSON(c.text)
		if err != nil || got != c.want {
			t.Errorf("canonicalJSON(%s) = %s, %v, want %s", c.text, got, err, c.want)
		}
		if again, err := canonicalJSON(got); err != nil || again != got {
			t.Errorf("canonicalJSON(%s) = %s, %v: it changes again", got, again, err)
		}
	}
	for _, bad := range []string{
		``, `{`, `{}{}`, `nul`, `"\ud83d"`, `"\ud83dx"`, `"\ude00\ud83d"`, `{"\ud83d\n":1}`, `1e999999999999`, `1e100001`,
		strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1), `"` + strings.Repeat("a", maxJSON) + `"`,
	} {
		if got, err := canonicalJSON(bad); err == nil {
			t.Errorf("canonicalJSON(%.40s) = %.40s, want an error", bad, got)
		}
	}
	deep := strings.Repeat("[", maxDepth) + `"]]][[["` + strings.Repeat("]", maxDepth)
	if got, err := canonicalJSON(deep); err != nil || got != deep {
		t.Errorf("a value of %d levels: %v", maxDepth, err)
	}
}

// TestCanonicalJSONKeepsValues compares with the standard decoder.
func TestCanonicalJSONKeepsValues(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.Float64().Draw(t, "number")
		s := rapid.String().Draw(t, "text")
		text, err := json.Marshal(map[string]any{"n": f, s: s})
		if err != nil {
			t.Fatal(err)
		}
		canonical, err := canonicalJSON(string(text))
		if err != nil {
			t.Fatal(err)
		}
		var before, after map[string]any
		if json.Unmarshal(text, &before) != nil || json.Unmarshal([]byte(canonical), &after) != nil {
			t.Fatalf("%s is not valid", canonical)
		}
		for name, v := range before {
			if after[name] != v {
				t.Fatalf("%s became %s", text, canonical)
			}
		}
	})
}

func TestCanonicalDecimal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v     any
		scale int
		want  string
	}{
		{"1.50", 2, "1.50"}, {[]byte("1.5"), 2, "1.50"}, {"001", 2, "1.00"}, {"-0.00", 2, "0.00"}, {"-0.01", 2, "-0.01"}, {int64(-7), 3, "-7.000"},
		{2.25, 2, "2.25"}, {"12345678901234567890.123456789", 9, "12345678901234567890.123456789"}, {"5", 0, "5"}, {"5.000", 0, "5"},
	} {
		if got, err := canonicalDecimal(c.v, c.scale); err != nil || got != c.want {
			t.Errorf("canonicalDecimal(%v, %d) = %q, %v, want %q", c.v, c.scale, got, err, c.want)
		}
	}
	for _, bad := range []any{"", "NaN", "Infinity", "1.234", "1e5", ".5", "5.", "+1", " 1", math.Inf(1), math.NaN(), float64(1 << 60), true, strings.Repeat("9", maxDigits+1)} {
		if got, err := canonicalDecimal(bad, 2); err == nil {
			t.Errorf("canonicalDecimal(%v) = %q, want an error", bad, got)
		}
	}
}

// everyType has a column of each type that may be NULL, and one that may not.
var everyType = Table{Name: "samples", Key: []string{"id"}, Columns: []Column{
	{Name: "id", Type: tenantdb.TypeUUID},
	{Name: "parent_id", Type: tenantdb.TypeUUID, Nullable: true, Self: true},
	{Name: "words", Type: tenantdb.TypeText, Nullable: true},
	{Name: "number", Type: tenantdb.TypeInteger, Nullable: true},
	{Name: "yes", Type: tenantdb.TypeBoolean, Nullable: true},
	{Name: "at", Type: tenantdb.TypeTimestamp, Nullable: true},
	{Name: "amount", Type: tenantdb.TypeDecimal, Scale: 4, Nullable: true},
	{Name: "data", Type: tenantdb.TypeJSON, Nullable: true},
	{Name: "raw", Type: tenantdb.TypeBytes, Nullable: true},
}}

func sampleRow(id string) []any {
	return []any{id, nil, "wörd", int64(math.MinInt64), true, time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC), "12.3400", `{"a":1}`, []byte{0, 255}}
}

const sampleID = "018f2b6c-7d1e-7c3a-9f00-000000000001"

func TestRowsRefuseWhatCannotBeKept(t *testing.T) {
	t.Parallel()
	_, err := appendRow(nil, everyType.Columns, sampleRow(sampleID))
	testkit.Must(t, err)
	for column, bad := range map[int][]any{
		0: {nil, "018F2B6C-7D1E-7C3A-9F00-000000000001", "x", sampleID[1:], int64(1)},
		2: {"\xff", int64(1), time.Now()},
		3: {"1.5", 1.5, "9223372036854775808", ""},
		4: {int64(2), "yes", 0.5},
		5: {"2026-01-01", time.Time{}.AddDate(-1, 0, 0), maxTime, int64(5)},
		6: {"1.23456", "x"},
		7: {"{", "\xff"},
		8: {int64(1), strings.Repeat("a", maxRow+1)},
	} {
		for _, v := range bad {
			row := sampleRow(sampleID)
			row[column] = v
			_, err := appendRow(nil, everyType.Columns, row)
			if err == nil || !strings.Contains(err.Error(), everyType.Columns[column].Name) {
				t.Errorf("column %s accepts %.20v or does not name itself: %v", everyType.Columns[column].Name, v, err)
			}
		}
	}
	row := sampleRow(sampleID)
	row[2], row[8] = strings.Repeat("a", maxRow/2), make([]byte, maxRow/2)
	if _, err := appendRow(nil, everyType.Columns, row); err == nil {
		t.Error("a row of more than 8 MiB is accepted")
	}
}

// TestNullIsNotEmpty checks that NULL differs from every other value in the encoding and in
// the checksum.
func TestNullIsNotEmpty(t *testing.T) {
	t.Parallel()
	seen := map[string]any{}
	for _, v := range []any{nil, "", "0", "\x00", "null"} {
		b, err := appendRow(nil, []Column{everyType.Columns[2]}, []any{v})
		testkit.Must(t, err)
		var count container.Tally
		count.Add(b)
		sum := count.Summary("").Checksum
		if other, ok := seen[sum]; ok {
			t.Errorf("%q and %q have one checksum", v, other)
		}
		seen[sum] = v
		values, rest, err := decodeRow(b, []Column{everyType.Columns[2]})
		if err != nil || len(rest) > 0 || values[0] != v {
			t.Errorf("%q is read as %q, %v", v, values, err)
		}
	}
}
