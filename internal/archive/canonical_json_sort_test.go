package archive

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func sortedJSON(s string) (string, bool) {
	b, ok := appendSortedJSON([]byte("before"), s)
	return strings.TrimPrefix(string(b), "before"), ok
}

// TestSortedJSONIsCanonical compares the quick way to canonical JSON with the slow one: they
// agree wherever the quick one gives an answer.
func TestSortedJSONIsCanonical(t *testing.T) {
	t.Parallel()
	pieces := rapid.SampledFrom([]string{"{", "}", "[", "]", ",", ":", `"a": `, `"b":`, `"aa" :`, `""`, `"\\"`, `"\""`, `"\u0001"`, `"\n"`, `"é"`, "\"\xff\"", "0", "-0", "01", "-1", "12 ", "1e2", "1.5", "12345678901234567890", "null", "true", " fals", "\t", "\u00a0"})
	accepted := 0
	check := func(r interface{ Fatalf(string, ...any) }, s string) {
		got, ok := sortedJSON(s)
		if !ok {
			return
		}
		accepted++
		if want, err := rewrittenJSON(s); err != nil || want != got {
			r.Fatalf("%q becomes %q, want %q, %v", s, got, want, err)
		}
	}
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.OneOf(jsonText, rapid.Map(rapid.SliceOfN(pieces, 1, 9), func(p []string) string { return strings.Join(p, "") })).Draw(r, "text")
		for _, s := range []string{text, `{"b": ` + text + `, "a": [1, ` + text + `]}`, `{"bb": 1, "a": ` + text + ` , "c":2}`, "[" + text + " ,\n" + text + "]"} {
			check(r, s)
		}
	})
	if accepted == 0 { // the number of texts depends on a flag
		t.Error("no text is sorted")
	}
	for s, want := range map[string]string{
		` {"b": {"d": 1, "c": [ ]}, "aa": "x y", "a": [1, {}, "\\\""]} `: `{"a":[1,{},"\\\""],"aa":"x y","b":{"c":[],"d":1}}`,
		strings.Repeat("[ ", maxDepth) + strings.Repeat("]", maxDepth):   strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth),
	} {
		if got, ok := sortedJSON(s); !ok || got != want {
			t.Errorf("%.60s becomes %.60s, %v", s, got, ok)
		}
	}
	for _, s := range []string{`{"a":1,"a":2}`, `{"b":1,"a":1,"b":2}`, `{"a\\":1}`, strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1), `{"a":1,}`, `[1,]`, `{} x`, "", " "} {
		if got, ok := sortedJSON(s); ok {
			t.Errorf("%.60s becomes %.60s", s, got)
		}
	}
}

// TestSortingJSONAllocatesLittle checks what the addresses of an order cost.
func TestSortingJSONAllocatesLittle(t *testing.T) { //nolint:paralleltest // it counts allocations
	const address = `{"city": "Köln", "phone": "+33 1", "country": "FR", "lastName": "L", "firstName": "F", "postalCode": "12345", "addressLine1": "1, rue X"}`
	if n := testing.AllocsPerRun(100, func() { _, _ = canonicalJSON(address) }); n > 3 { // the text, as bytes and as a string, and the unsorted members
		t.Errorf("%v allocations", n)
	}
}
