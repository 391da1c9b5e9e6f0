package testkit_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stoahq/stoa/internal/testkit"
)

// failure records the message with which a test fails.
type failure struct {
	testing.TB
	message string
}

func (*failure) Helper()            {}
func (f *failure) Fatal(all ...any) { f.message = fmt.Sprint(all...); panic(f) }

// TestEventually checks that a wait ends soon after its condition holds, and that one in
// vain fails at its time limit and shows what the condition saw last.
func TestEventually(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		holdsAfter time.Duration
		ends       time.Duration // at the latest; it never ends before the condition holds
		message    string
	}{
		"at once":              {0, 0, ""},
		"later":                {time.Second, time.Second + 10*time.Millisecond, ""},
		"at the last moment":   {2*time.Second - 20*time.Millisecond, 2 * time.Second, ""},
		"after the time limit": {time.Minute, 2*time.Second + 10*time.Millisecond, "not within 2s: the job has run; last seen: waiting, {Attempts:3}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f, begun := &failure{TB: t}, time.Now()
				state, job := "", struct{ Attempts int }{}
				func() {
					defer func() { _ = recover() }() // the end of the failed test
					testkit.Eventually(f, 2*time.Second, "the job has run", func() bool {
						state, job.Attempts = "waiting", 3
						return time.Since(begun) >= c.holdsAfter
					}, &state, &job)
				}()
				if took := time.Since(begun); took < min(c.holdsAfter, 2*time.Second) || took > c.ends {
					t.Errorf("it ended after %v", took)
				}
				if f.message != c.message {
					t.Errorf("it says %q, want %q", f.message, c.message)
				}
			})
		})
	}
}
