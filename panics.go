package stoa

import (
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
)

// Panic is a panic that CatchPanic has recovered.
type Panic struct {
	Value any
	Where string // the function, file and line that panicked
	Stack []byte // for the log
}

func (p *Panic) Error() string { return fmt.Sprintf("panic in %s: %v", p.Where, p.Value) }

// CatchPanic calls fn and returns its error. It returns a panic of fn as a *Panic.
// It is for goroutines that call a database driver or other code that reads data
// from an untrusted server: an unrecovered panic ends the process, for all stores.
func CatchPanic(fn func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &Panic{Value: value, Where: panicked(), Stack: debug.Stack()}
		}
	}()
	return fn()
}

// panicked returns the location of the panic that the calling deferred function
// has recovered: the first frame below those of the runtime.
func panicked() string {
	var counters [32]uintptr
	frames := runtime.CallersFrames(counters[:runtime.Callers(3, counters[:])]) // skips itself and the deferred function
	for {
		frame, more := frames.Next()
		if !strings.HasPrefix(frame.Function, "runtime.") || !more {
			return fmt.Sprintf("%s (%s:%d)", frame.Function, filepath.Base(frame.File), frame.Line)
		}
	}
}
