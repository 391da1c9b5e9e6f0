package credits_test

import (
	"testing"

	"github.com/stoahq/stoa"
)

func wantCode(t testing.TB, err error, want stoa.Code) {
	t.Helper()
	if got := stoa.CodeOf(err); got != want {
		t.Fatalf("got %q (%v), want %q", got, err, want)
	}
}

func ptr[T any](v T) *T { return &v }
