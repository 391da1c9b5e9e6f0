package stoa_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
)

func TestCatchPanic(t *testing.T) {
	t.Parallel()
	var none []int
	for name, c := range map[string]struct {
		fn   func() error
		want string // "" for no panic
	}{
		"no error":        {func() error { return nil }, ""},
		"an error":        {func() error { return io.EOF }, ""},
		"a value":         {func() error { panic("broken") }, "broken"},
		"an error value":  {func() error { panic(io.EOF) }, "EOF"},
		"a runtime error": {func() error { none[len(none)] = 1; return nil }, "index out of range"},
		"nil":             {func() error { panic(nil) }, "panic called with nil"}, //nolint:govet // the tested case
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := stoa.CatchPanic(c.fn)
			var p *stoa.Panic
			if errors.As(err, &p) != (c.want != "") {
				t.Fatalf("got %v", err)
			}
			if p == nil {
				return
			}
			if !strings.Contains(p.Error(), c.want) || !strings.Contains(p.Where, "TestCatchPanic") || !strings.Contains(p.Where, "panics_test.go:") || len(p.Stack) == 0 {
				t.Errorf("%v, stack of %d bytes", err, len(p.Stack))
			}
			if errors.Is(err, io.EOF) || stoa.CodeOf(err) != stoa.Internal {
				t.Error("a panic with an error counts as that error")
			}
		})
	}
}
