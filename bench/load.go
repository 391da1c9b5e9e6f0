package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"time"
)

// job is the task of the load generator: a closed loop, in which each connection sends its
// next request after the previous answer.
type job struct {
	Address     string        `json:"address"`
	Targets     []target      `json:"targets"`
	Connections int           `json:"connections"`
	Duration    time.Duration `json:"duration"`
	Draw        draw          `json:"draw"`

	Requests    int           `json:"requests,omitempty"`    // ends after this many requests; 0 is no limit
	Settle      time.Duration `json:"settle,omitempty"`      // time before the duration; requests during it do not count
	Pace        time.Duration `json:"pace,omitempty"`        // minimum time between two requests of one connection
	Unavailable string        `json:"unavailable,omitempty"` // code of an error that counts separately and not as an error
}

// target is one request and a text that its answers must contain, so that one store's answer
// cannot be taken for another's. Without a Path it asks for a store's page.
type target struct {
	Host   string `json:"host"`
	Marker string `json:"marker"`

	Path  string `json:"path,omitempty"`
	Token string `json:"token,omitempty"` // of the caller
	Body  string `json:"body,omitempty"`  // JSON, which makes it a POST
}

func (t target) request() []byte {
	method, headers := http.MethodGet, ""
	if t.Token != "" {
		headers = "Authorization: Bearer " + t.Token + "\r\n"
	}
	if t.Body != "" {
		method, headers = http.MethodPost, headers+"Content-Type: application/json\r\nContent-Length: "+strconv.Itoa(len(t.Body))+"\r\n"
	}
	return []byte(method + " " + cmp.Or(t.Path, storefrontPath) + " HTTP/1.1\r\nHost: " + t.Host + "\r\n" + headers + "\r\n" + t.Body)
}

// result is the result of one job. Latencies are in nanoseconds, and are those of every
// answer that is not an error.
type result struct {
	Requests    int           `json:"requests"`
	Sent        int           `json:"sent,omitempty"`        // requests, those of the settling time included
	Connects    int           `json:"connects,omitempty"`    // connections to stores' databases made meanwhile, where they are counted
	Unavailable int           `json:"unavailable,omitempty"` // answers with the error code that the job allows
	Errors      int           `json:"errors"`
	FirstError  string        `json:"firstError,omitempty"`
	Throughput  float64       `json:"throughput"` // correct answers per second
	P50         time.Duration `json:"p50"`
	P95         time.Duration `json:"p95"`
	P99         time.Duration `json:"p99"`
	Slowest     time.Duration `json:"slowest"`
}

// runLoad runs the job in a separate process, so that the two sides have exactly the same
// load and share no heap.
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
	counting := time.Now().Add(j.Settle)
	for _, w := range workers {
		running.Go(func() { w.run(counting, counting.Add(j.Duration)) })
	}
	running.Wait()
	return json.NewEncoder(os.Stdout).Encode(summarise(workers, time.Since(counting)))
}

// patience is how long an answer may take before it counts as missing. The platform's own
// timeout for a database is shorter.
const patience = 45 * time.Second

// worker owns one connection. It speaks HTTP itself: a client with a pool would cost more
// than some of the measured servers.
type worker struct {
	job       job
	conn      net.Conn
	in        *bufio.Reader
	body      bytes.Buffer
	exchanges []exchange
	next      func() int // returns an index of exchanges, or noMore

	sent        int
	latencies   []time.Duration
	unavailable int // how many of the latencies are of unavailable answers
	errors      int
	first       error
}

// exchange is a request, ready to be sent, and the text that its answer must contain.
type exchange struct{ request, marker []byte }

func (j job) dial(ctx context.Context) ([]*worker, error) {
	exchanges := make([]exchange, len(j.Targets))
	for i, t := range j.Targets {
		exchanges[i] = exchange{t.request(), []byte(t.Marker)}
	}
	next := j.Draw.from(len(exchanges), j.Requests)
	workers := make([]*worker, j.Connections)
	for i := range workers {
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", j.Address)
		if err != nil {
			return nil, err
		}
		workers[i] = &worker{
			job: j, conn: conn, in: bufio.NewReader(conn), exchanges: exchanges, next: next(), latencies: make([]time.Duration, 0, 1<<16),
		}
	}
	return workers, nil
}

// run ends at the deadline, at the end of the draw, or at the first error of the connection
// itself: the server must keep it open.
func (w *worker) run(counting, deadline time.Time) {
	defer w.conn.Close()
	_ = w.conn.SetDeadline(deadline.Add(patience))
	for start := time.Now(); start.Before(deadline); {
		i := w.next()
		if i == noMore {
			return
		}
		w.sent++
		answer, alive, err := w.exchange(w.exchanges[i])
		end := time.Now()
		switch {
		case err != nil: // errors count during the settling time too
			if w.errors++; w.first == nil {
				w.first = err
			}
		case start.Before(counting):
		default:
			w.latencies = append(w.latencies, end.Sub(start))
			if answer == absent {
				w.unavailable++
			}
		}
		if !alive {
			return
		}
		if wait := w.job.Pace - end.Sub(start); wait > 0 {
			time.Sleep(wait)
			end = time.Now()
		}
		start = end
	}
}

type answer int

const (
	present answer = iota
	absent         // the error code that the job allows
)

// exchange sends one request. It reports whether the connection can be used again, and what
// was wrong with the answer.
func (w *worker) exchange(x exchange) (a answer, alive bool, err error) {
	if _, err := w.conn.Write(x.request); err != nil {
		return a, false, err
	}
	res, err := http.ReadResponse(w.in, nil) //nolint:bodyclose // read to its end below; the connection is the worker's own
	if err != nil {
		return a, false, err
	}
	w.body.Reset()
	if _, err = w.body.ReadFrom(res.Body); err != nil {
		return a, false, err
	}
	switch body := w.body.Bytes(); {
	case res.Close:
		err = io.ErrUnexpectedEOF
	case res.StatusCode == http.StatusServiceUnavailable && w.job.Unavailable != "" && codeOf(body) == w.job.Unavailable:
		a = absent
	case res.StatusCode != http.StatusOK:
		err = fmt.Errorf("%s: %s", res.Status, bytes.TrimSpace(body))
	case !bytes.Contains(body, x.marker):
		err = fmt.Errorf("%s is not in the answer: %s", x.marker, bytes.TrimSpace(body))
	}
	return a, !res.Close, err
}

// codeOf returns the error code of a problem document.
func codeOf(problem []byte) string {
	var p struct{ Code string }
	_ = json.Unmarshal(problem, &p) // the code is empty if the body is not a problem document
	return p.Code
}

func summarise(workers []*worker, took time.Duration) result {
	var r result
	var latencies []time.Duration
	for _, w := range workers {
		latencies = append(latencies, w.latencies...)
		r.Sent += w.sent
		r.Unavailable += w.unavailable
		r.Errors += w.errors
		if r.FirstError == "" && w.first != nil {
			r.FirstError = w.first.Error()
		}
	}
	slices.Sort(latencies)
	n := len(latencies)
	r.Requests = n + r.Errors
	r.Throughput = float64(n-r.Unavailable) / took.Seconds()
	if n > 0 {
		r.P50, r.P95, r.P99, r.Slowest = latencies[n/2], latencies[n*95/100], latencies[n*99/100], latencies[n-1]
	}
	return r
}
