package archive

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestCheckedJSONIsNotRewritten compares the check of canonical JSON with the slower way: a
// text that passes is one that rewriting does not change.
func TestCheckedJSONIsNotRewritten(t *testing.T) {
	t.Parallel()
	pieces := rapid.SampledFrom([]string{"{", "}", "[", "]", ",", ":", `"a"`, `"b"`, `""`, `"\\"`, `"\""`, `"\u0001"`, `"\/"`, `"é"`, `"\ud83d"`, "\"\xff\"", "0", "-0", "01", "-1", "12", "1e2", "1.5", "1234567890123456789", "null", "true", "fals", " ", `"`})
	accepted := 0
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.OneOf(jsonText, rapid.Map(rapid.SliceOfN(pieces, 1, 9), func(p []string) string { return strings.Join(p, "") })).Draw(r, "text")
		for _, s := range []string{text, `{"a":` + text + `,"b":[` + text + `]}`} {
			want, err := rewrittenJSON(s)
			if err == nil {
				s = rapid.SampledFrom([]string{s, want}).Draw(r, "form")
			}
			if !isCanonicalJSON(s) {
				continue
			}
			accepted++
			if want, err := rewrittenJSON(s); err != nil || want != s {
				r.Fatalf("%q passes, and is rewritten to %q, %v", s, want, err)
			}
		}
	})
	if accepted == 0 { // the number of texts depends on a flag
		t.Error("no text passes")
	}
	for _, s := range []string{`{"":{},"a":[],"b":[1,-20,"x",null,true,false,{"é":"\\\""}]}`, strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)} {
		if !isCanonicalJSON(s) {
			t.Errorf("%.60s does not pass", s)
		}
	}
	if isCanonicalJSON(strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1)) {
		t.Error("a value with too many levels passes")
	}
}
