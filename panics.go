package stoa

import (
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
)

// Panic is a panic that CatchPanic has turned into an error.
type Panic struct {
	Value any
	Where string // function, file and line that panicked
	Stack []byte // for the log
}

func (p *Panic) Error() string { return fmt.Sprintf("panic in %s: %v", p.Where, p.Value) }

// CatchPanic calls fn and returns its error. A panic of fn comes back as a
// *Panic. It is for goroutines of ours that call a database driver or other
// code that reads what a stranger's server sends: a panic that leaves a
// goroutine ends the process, for all stores.
func CatchPanic(fn func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &Panic{Value: value, Where: panicked(), Stack: debug.Stack()}
		}
	}()
	return fn()
}

// panicked names the place of the panic that the calling deferred function has
// recovered: the first frame below the runtime's own.
func panicked() string {
	var counters [32]uintptr
	frames := runtime.CallersFrames(counters[:runtime.Callers(3, counters[:])]) // without itself and the deferred function
	for {
		frame, more := frames.Next()
		if !strings.HasPrefix(frame.Function, "runtime.") || !more {
			return fmt.Sprintf("%s (%s:%d)", frame.Function, filepath.Base(frame.File), frame.Line)
		}
	}
}
