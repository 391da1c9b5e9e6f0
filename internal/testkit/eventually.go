package testkit

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Timeout is how long a test waits for something that has no time limit of its own. It is
// long enough for a busy machine under the race detector.
const Timeout = 2 * time.Minute

// Eventually polls until condition returns true. It fails the test after within, and says
// what did not happen. state holds pointers to what condition saw last, which the failure
// shows. condition runs in the goroutine of the test.
func Eventually(t testing.TB, within time.Duration, what string, condition func() bool, state ...any) {
	t.Helper()
	const longest = 10 * time.Millisecond // between two polls; the first ones follow sooner
	deadline := time.After(within)
	for pause := time.Millisecond; !condition(); pause = min(2*pause, longest) {
		select {
		case <-time.After(pause):
		case <-deadline:
			t.Fatal(inVain(within, what, state))
		}
	}
}

func inVain(within time.Duration, what string, state []any) string {
	var b strings.Builder
	fmt.Fprintf(&b, "not within %v: %s", within, what)
	for i, pointer := range state {
		separator := ", "
		if i == 0 {
			separator = "; last seen: "
		}
		fmt.Fprintf(&b, "%s%+v", separator, reflect.Indirect(reflect.ValueOf(pointer)))
	}
	return b.String()
}
