package version

import (
	"testing"

	"github.com/stoahq/stoa"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	type settings struct{ A, B int }
	v := Of(settings{1, 2})
	if v != Of(settings{1, 2}) || v == Of(settings{2, 1}) || len(v) != 32 {
		t.Errorf("version %s", v)
	}
	for name, c := range map[string]struct {
		match Match
		want  stoa.Code
	}{
		"no condition": {nil, ""}, "the version": {Match{v}, ""}, "one of several": {Match{"x", v}, ""},
		"another": {Match{"x"}, stoa.EditConflict}, "none": {Match{}, stoa.EditConflict},
	} {
		if err := c.match.Check(v); stoa.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
