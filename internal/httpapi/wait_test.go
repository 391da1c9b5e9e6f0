package httpapi

import (
	"testing"

	"github.com/stoahq/stoa/internal/provisioning"
)

// TestNoWait checks that a caller who does not want to wait is answered with the run as it was
// recorded: what has become of it meanwhile is not asked, so that the answer is always the same.
func TestNoWait(t *testing.T) {
	t.Parallel()
	timeout, applied := preferredWait("wait=0")
	if timeout != 0 || applied != "wait=0" {
		t.Fatalf("%v, %q", timeout, applied)
	}
	a := &api{} // without a service to ask
	if run, err := a.waitForRun(t.Context(), provisioning.Run{State: provisioning.Running}, timeout); err != nil || run.State != provisioning.Running {
		t.Errorf("%+v, %v", run, err)
	}
}
