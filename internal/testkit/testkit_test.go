package testkit_test

import (
	"testing"

	"github.com/stoahq/stoa/internal/testkit"
)

// recorder records how a test ends.
type recorder struct {
	testing.TB
	failed, skipped bool
}

func (*recorder) Helper()        {}
func (r *recorder) Fatal(...any) { r.failed = true; panic(r) }
func (r *recorder) Skip(...any)  { r.skipped = true; panic(r) }

// TestUnavailable checks that a test that lacks something fails where everything is
// required, and is skipped elsewhere.
func TestUnavailable(t *testing.T) {
	for value, want := range map[string]recorder{"1": {failed: true}, "": {skipped: true}} {
		t.Setenv(testkit.RequireServersEnv, value)
		var r recorder
		func() {
			defer func() { _ = recover() }() // the recorder's end of the test
			testkit.Unavailable(&r, "it is not here")
		}()
		if r != want {
			t.Errorf("%s=%q: %+v, want %+v", testkit.RequireServersEnv, value, r, want)
		}
	}
}
