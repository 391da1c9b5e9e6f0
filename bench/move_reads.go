package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// readers is how many shoppers read at a time, and readPause what each waits between two
// reads.
const (
	readers   = 4
	readPause = 10 * time.Millisecond
)

// reads counts what shoppers read. It is safe for concurrent use.
type reads struct {
	mu      sync.Mutex
	done    int
	failed  int
	fault   error
	longest time.Duration
}

// begin reads a store's page and products until the returned function is called.
func (r *reads) begin(ctx context.Context, address string, s shop) (end func()) {
	stop := make(chan struct{})
	var running sync.WaitGroup
	for i := range readers {
		path, marker := storefrontPath, s.target().Marker
		if i%2 == 1 {
			path, marker = "/api/storefront/products?limit=20", `"data":[{`
		}
		running.Go(func() {
			for {
				begin := time.Now()
				r.count(read(ctx, "http://"+address+path, s.host, marker), begin)
				select {
				case <-stop:
					return
				case <-time.After(readPause):
				}
			}
		})
	}
	return func() {
		close(stop)
		running.Wait()
	}
}

func (r *reads) count(fault error, begin time.Time) {
	took := time.Since(begin)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done++
	r.longest = max(r.longest, took)
	if fault != nil {
		if r.failed++; r.fault == nil {
			r.fault = fault
		}
	}
}

// read fails unless the answer is 200 and contains the marker.
func read(ctx context.Context, url, host, marker string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Host = host
	res, err := keepAlive.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || !strings.Contains(string(body), marker) {
		return fmt.Errorf("%s: %s: %.300s", url, res.Status, body)
	}
	return nil
}
