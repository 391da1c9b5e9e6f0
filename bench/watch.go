package main

import (
	"context"
	"sync"
	"time"
)

// watchEvery is the interval between two calls of look.
const watchEvery = 100 * time.Millisecond

// watch calls look about ten times a second until it is stopped, and keeps the maximum of
// each count. The first error ends it.
func watch(ctx context.Context, look func(context.Context) (map[string]int, error)) (stop func() (highest map[string]int, err error)) {
	ctx, cancel := context.WithCancel(ctx)
	highest := map[string]int{}
	var fault error
	var running sync.WaitGroup
	running.Go(func() {
		ticker := time.NewTicker(watchEvery)
		defer ticker.Stop()
		for {
			counts, err := look(ctx)
			if err != nil {
				if ctx.Err() == nil { // an error, and not just the stop
					fault = err
				}
				return
			}
			for what, n := range counts {
				highest[what] = max(highest[what], n)
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	})
	return func() (map[string]int, error) {
		cancel()
		running.Wait()
		return highest, fault
	}
}
