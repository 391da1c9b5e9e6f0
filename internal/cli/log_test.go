package cli

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// logOutput is a destination of a log. It can be read while the log is written.
type logOutput struct {
	mu    sync.Mutex
	bytes bytes.Buffer
}

func (p *logOutput) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes.Write(b)
}

func (p *logOutput) lines() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Count(p.bytes.String(), "\n")
}

func TestBufferedLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p logOutput
		b := newBufferedLog(&p)
		log := slog.New(urgent{slog.NewTextHandler(b, nil), b}).With("a", 1).WithGroup("g")
		expect := func(when string, want int) {
			t.Helper()
			if got := p.lines(); got != want {
				t.Errorf("%s: %d lines, want %d", when, got, want)
			}
		}
		log.Info("one")
		expect("at once", 0)
		<-time.After(flushEvery + time.Millisecond)
		expect("after a while", 1)
		log.Info("two")
		log.Warn("three")
		expect("with a warning", 3)
		log.Info("four")
		b.Close()
		expect("closed", 4)
	})
}
