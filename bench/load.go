package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// job is what the load generator is told: a closed loop, in which each
// connection sends its next request when the answer to the last is in.
type job struct {
	Address     string        `json:"address"`
	Targets     []target      `json:"targets"`
	Connections int           `json:"connections"`
	Duration    time.Duration `json:"duration"`
	Uniform     bool          `json:"uniform"` // draw targets at random instead of going round
}

// target is one address and what its answers must contain, so that one
// store's answer cannot pass for another's.
type target struct {
	Host   string `json:"host"`
	Marker string `json:"marker"`
}

// result is what one job came to. Latencies are in nanoseconds.
type result struct {
	Requests   int           `json:"requests"`
	Errors     int           `json:"errors"`
	FirstError string        `json:"firstError,omitempty"`
	Throughput float64       `json:"throughput"` // right answers per second
	P50        time.Duration `json:"p50"`
	P99        time.Duration `json:"p99"`
}

// runLoad runs the job in a process of its own, so that the two sides have
// exactly the same load and no heap in common.
func runLoad(ctx context.Context, j job) (result, error) {
	var res result
	self, err := os.Executable()
	if err != nil {
		return res, err
	}
	in, err := json.Marshal(j)
	if err != nil {
		return res, err
	}
	cmd := exec.CommandContext(ctx, self, "load") //nolint:gosec // this binary
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return res, fmt.Errorf("load generator: %w", err)
	}
	return res, json.Unmarshal(out, &res)
}

// loadCmd reads a job from its input and writes the result to its output.
type loadCmd struct{}

func (loadCmd) Run(ctx context.Context) error {
	var j job
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		return err
	}
	workers, err := j.dial(ctx)
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	start := time.Now()
	for _, w := range workers {
		running.Go(func() { w.run(start.Add(j.Duration)) })
	}
	running.Wait()
	return json.NewEncoder(os.Stdout).Encode(summarise(workers, time.Since(start)))
}

// worker owns one connection. It speaks HTTP by itself: a client with a pool
// would cost more than some of the servers it is to measure.
type worker struct {
	conn      net.Conn
	in        *bufio.Reader
	body      bytes.Buffer
	next      func() exchange
	latencies []time.Duration
	errors    int
	first     error
}

// exchange is a request, ready to be sent, and what its answer must contain.
type exchange struct{ request, marker []byte }

func (j job) dial(ctx context.Context) ([]*worker, error) {
	exchanges := make([]exchange, len(j.Targets))
	for i, t := range j.Targets {
		exchanges[i] = exchange{[]byte("GET " + storefrontPath + " HTTP/1.1\r\nHost: " + t.Host + "\r\n\r\n"), []byte(t.Marker)}
	}
	var turn atomic.Uint64
	next := func() exchange { return exchanges[turn.Add(1)%uint64(len(exchanges))] }
	if j.Uniform {
		next = func() exchange { return exchanges[rand.IntN(len(exchanges))] } //nolint:gosec // no secret
	}
	workers := make([]*worker, j.Connections)
	for i := range workers {
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", j.Address)
		if err != nil {
			return nil, err
		}
		workers[i] = &worker{conn: conn, in: bufio.NewReader(conn), next: next, latencies: make([]time.Duration, 0, 1<<16)}
	}
	return workers, nil
}

// run ends at the deadline, or at the first fault of the connection itself:
// the server must keep it open.
func (w *worker) run(deadline time.Time) {
	defer w.conn.Close()
	_ = w.conn.SetDeadline(deadline.Add(10 * time.Second))
	for start := time.Now(); start.Before(deadline); {
		x := w.next()
		alive, err := w.exchange(x)
		end := time.Now()
		if err == nil {
			w.latencies = append(w.latencies, end.Sub(start))
		} else if w.errors++; w.first == nil {
			w.first = err
		}
		if !alive {
			return
		}
		start = end
	}
}

// exchange reports whether the connection can be used again, and what was
// wrong with the answer.
func (w *worker) exchange(x exchange) (alive bool, err error) {
	if _, err := w.conn.Write(x.request); err != nil {
		return false, err
	}
	res, err := http.ReadResponse(w.in, nil) //nolint:bodyclose // read to its end below, on a connection that is our own
	if err != nil {
		return false, err
	}
	w.body.Reset()
	_, err = w.body.ReadFrom(res.Body)
	switch {
	case err != nil:
		return false, err
	case res.StatusCode != http.StatusOK:
		err = fmt.Errorf("%s: %s", res.Status, bytes.TrimSpace(w.body.Bytes()))
	case !bytes.Contains(w.body.Bytes(), x.marker):
		err = fmt.Errorf("%s is not in the answer: %s", x.marker, bytes.TrimSpace(w.body.Bytes()))
	case res.Close:
		err = io.ErrUnexpectedEOF
	}
	return !res.Close, err
}

func summarise(workers []*worker, took time.Duration) result {
	var r result
	var latencies []time.Duration
	for _, w := range workers {
		latencies = append(latencies, w.latencies...)
		r.Errors += w.errors
		if r.FirstError == "" && w.first != nil {
			r.FirstError = w.first.Error()
		}
	}
	slices.Sort(latencies)
	r.Requests = len(latencies) + r.Errors
	r.Throughput = float64(len(latencies)) / took.Seconds()
	if n := len(latencies); n > 0 {
		r.P50, r.P99 = latencies[n/2], latencies[n*99/100]
	}
	return r
}
