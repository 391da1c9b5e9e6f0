package app_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// ignoring is a job that does not end when its context does.
type ignoring struct{}

func (ignoring) Kind() string { return "ignoring" }

// TestStopTakesItsTime checks that a stop ends within its timeout, whatever hangs, and
// reports what it could not end.
func TestStopTakesItsTime(t *testing.T) {
	t.Parallel()
	const timeout = 6 * time.Second
	cases := map[string]struct {
		hang func(t *testing.T, cfg *config.Config) *server // returns a server on which something hangs
		want string                                         // part of the error; "" for none, "*" for any or none
	}{
		"nothing":                            {hang: startForStop, want: ""},
		"a client that does not read":        {hang: unreadAnswers, want: "requests that did not finish and were cut off: 1"},
		"a client that sends half a header":  {hang: halfRequest("GET /healthz HTTP/1.1\r\nHost: local"), want: ""},
		"a connection without a request":     {hang: halfRequest(""), want: ""},
		"a job that ignores its context":     {hang: ignoringJob, want: "jobs under way: ignoring (1)"},
		"a silent Redis":                     {hang: silentRedis, want: ""},
		"a run at a silent database server":  {hang: silentRun, want: ""},
		"a frozen master":                    {hang: frozenMaster, want: ""},
		"a frozen master and a run":          {hang: frozenMasterWithRun, want: "*"},
		"a frozen server of a store":         {hang: frozenStore(false), want: ""},
		"a front that waits at a frozen one": {hang: frozenStore(true), want: "*"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, masterdb.SQLite)
			cfg.StopTimeout = timeout
			s := c.hang(t, cfg)
			begun := time.Now()
			err := s.Stop()
			took := time.Since(begun)
			t.Logf("took %v: %v", took.Round(time.Millisecond), err)
			if took > timeout+time.Second { // the extra second is for a busy machine
				t.Errorf("the stop took %v, want at most %v", took, timeout)
			}
			switch {
			case c.want == "*":
			case c.want == "" && err != nil:
				t.Errorf("stop: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("stop: %v, want %q", err, c.want)
			}
		})
	}
}

func startForStop(t *testing.T, cfg *config.Config) *server {
	t.Helper()
	s, err := launch(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func dialServer(t *testing.T, s *server) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// unreadAnswers requests more than the sockets' buffers hold, and reads nothing. On Linux
// the first answer waits already.
func unreadAnswers(t *testing.T, cfg *config.Config) *server {
	cfg.PrivateListen = "127.0.0.1:0"
	s := startForStop(t, cfg)
	conn := dialServer(t, s)
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	for range 500 {
		if _, err := io.WriteString(conn, "GET /api/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	answered := regexp.MustCompile(`stoa_http_request_duration_seconds_count\{.*openapi.* (\d+)`)
	metrics := client{t: t, url: s.PrivateURL}
	testkit.Eventually(t, testkit.Timeout, "an answer waits for its client", func() bool {
		before := answered.FindString(metrics.call("GET", "/metrics", nil).raw)
		<-time.After(time.Second)
		return before == answered.FindString(metrics.call("GET", "/metrics", nil).raw) && s.Requests.Load() == 1
	})
	return s
}

func halfRequest(text string) func(t *testing.T, cfg *config.Config) *server {
	return func(t *testing.T, cfg *config.Config) *server {
		s := startForStop(t, cfg)
		if _, err := io.WriteString(dialServer(t, s), text); err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func ignoringJob(t *testing.T, cfg *config.Config) *server {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, err := app.NewApp(t.Context(), cfg, slog.New(slog.DiscardHandler), "http://localhost")
	if err != nil {
		t.Fatal(err)
	}
	running, release := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(release) })
	jobs.Handle(a.Queue, time.Hour, func(context.Context, ignoring) error {
		close(running)
		<-release
		return nil
	})
	s, err := a.Serve(t.Context(), listener, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Master.Tx(t.Context(), func(tx *masterdb.Tx) error { return a.Queue.Enqueue(t.Context(), tx, ignoring{}) }); err != nil {
		t.Fatal(err)
	}
	<-running
	return &server{Server: s}
}

func silentRedis(t *testing.T, cfg *config.Config) *server {
	address, _ := silentServer(t)
	cfg.RedisURL = keyring.NewSecret("redis://" + address)
	s := startForStop(t, cfg)
	client{t: t, url: s.URL}.call("GET", "/healthz", nil).want(http.StatusOK)
	return s
}

// silentRun connects a store to a server that accepts connections and never replies.
func silentRun(t *testing.T, cfg *config.Config) *server {
	s := startForStop(t, cfg)
	connectSilent(t, s)
	return s
}

func connectSilent(t *testing.T, s *server) (c client, id string) {
	t.Helper()
	c, id = register(t, s, "owner@example.com")
	address, _ := silentServer(t)
	c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "postgresql", "connectionString": "postgres://u:p@" + address + "/d?sslmode=disable"},
		"Prefer", "wait=0").want(http.StatusAccepted)
	return c, id
}

func frozenMaster(t *testing.T, cfg *config.Config) *server {
	own := newOwnPostgres(t)
	cfg.MasterDBURL = keyring.NewSecret(own.url())
	s := startForStop(t, cfg)
	own.freeze()
	return s
}

func frozenMasterWithRun(t *testing.T, cfg *config.Config) *server {
	own := newOwnPostgres(t)
	cfg.MasterDBURL = keyring.NewSecret(own.url())
	s := startForStop(t, cfg)
	connectSilent(t, s)
	own.freeze()
	return s
}

// frozenStore has a store whose database server is frozen, with or without a request
// that waits for it.
func frozenStore(asked bool) func(t *testing.T, cfg *config.Config) *server {
	return func(t *testing.T, cfg *config.Config) *server {
		own := newOwnPostgres(t)
		s := startForStop(t, cfg)
		c, id := register(t, s, "owner@example.com")
		a := c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "postgresql", "connectionString": own.url()}).want(http.StatusOK)
		host := a.list("hostnames")[0].(object)["hostname"].(string)
		client{t: t, url: s.URL}.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK)
		own.freeze()
		if asked {
			fmt.Fprintf(dialServer(t, s), "GET /api/storefront/store HTTP/1.1\r\nHost: %s\r\n\r\n", host)
			testkit.Eventually(t, testkit.Timeout, "the request is under way", func() bool { return s.Requests.Load() == 1 })
		}
		return s
	}
}

// TestStopAnswersWhatWaits checks that a request that waits for a run is answered at
// once with the run's current state, and that an event stream ends with a reconnect
// delay.
func TestStopAnswersWhatWaits(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	cfg.StopTimeout = 5 * time.Second
	s := startForStop(t, cfg)
	c, id := register(t, s, "owner@example.com")
	address, _ := silentServer(t)
	waiting := make(chan answer)
	go func() {
		waiting <- c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "postgresql", "connectionString": "postgres://u:p@" + address + "/d?sslmode=disable"})
	}()
	testkit.Eventually(t, testkit.Timeout, "the request waits for its run", func() bool {
		return c.call("GET", "/api/stores/"+id+"/provisioning", nil).status == http.StatusOK && s.Requests.Load() == 1
	})
	stream := c.events(id, "")
	begun := time.Now()
	s.BeginStop()
	a := (<-waiting).want(http.StatusAccepted)
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("the answer took %v", took)
	}
	if a.header.Get("Location") != "/api/stores/"+id+"/provisioning" || a.text("storeId") != id {
		t.Errorf("the answer is %v %s", a.header, a.raw)
	}
	rest, err := io.ReadAll(stream.in)
	if err != nil || !strings.HasSuffix(string(rest), "retry: 500\n: this server stops; connect again with Last-Event-ID\n\n") {
		t.Errorf("the stream ended with %v: %s", err, rest)
	}
	if err := s.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// TestDrain checks that during the drain delay a server reports that it stops and
// serves requests as before, over new and existing connections. It closes each
// connection after the response.
func TestDrain(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	delay := 4 * time.Second
	cfg.DrainDelay, cfg.PrivateListen = &delay, "127.0.0.1:0"
	s := startForStop(t, cfg)
	_, _, host := connected(t, s, "owner@example.com")
	conn := dialServer(t, s)
	old := bufio.NewReader(conn)
	ask := func() (status int, closes bool) {
		t.Helper()
		fmt.Fprintf(conn, "GET /api/storefront/store HTTP/1.1\r\nHost: %s\r\n\r\n", host)
		res, err := http.ReadResponse(old, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		return res.StatusCode, res.Close
	}
	if status, closes := ask(); status != http.StatusOK || closes {
		t.Errorf("before: %d, closes %v", status, closes)
	}
	stopped, begun := make(chan error, 1), time.Now()
	go func() { stopped <- s.Stop() }()
	public, private := client{t: t, url: s.URL}, client{t: t, url: s.PrivateURL}
	testkit.Eventually(t, testkit.Timeout, "/readyz says so", func() bool { return public.call("GET", "/readyz", nil).status == http.StatusServiceUnavailable })
	if a := public.call("GET", "/readyz", nil).problem(http.StatusServiceUnavailable, "platform_unavailable"); a.header.Get("Retry-After") == "" || !strings.Contains(a.raw, "stopping") {
		t.Errorf("/readyz: %v %s", a.header, a.raw)
	}
	private.call("GET", "/health", nil).want(http.StatusOK).is("stopping", "status")
	public.call("GET", "/healthz", nil).want(http.StatusOK)
	public.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK)
	if status, closes := ask(); status != http.StatusOK || !closes {
		t.Errorf("an old connection: %d, closes %v", status, closes)
	}
	if took := time.Since(begun); took > delay {
		t.Skipf("the machine is too slow to ask within the drain delay: %v", took)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
	if took := time.Since(begun); took < delay {
		t.Errorf("stopped after %v, before the drain delay", took)
	}
}

// TestSecondSignal checks that a second signal ends the process without waiting.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	p := startProcess(t, testConfig(t, masterdb.SQLite), "STOA_STOP_TIMEOUT=5m", "STOA_DRAIN_DELAY=4m")
	signal := func() {
		t.Helper()
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	signal()
	testkit.Eventually(t, testkit.Timeout, "the server drains", func() bool {
		return client{t: t, url: p.url}.call("GET", "/readyz", nil).status == http.StatusServiceUnavailable
	})
	begun := time.Now()
	signal()
	if err := p.cmd.Wait(); err == nil || time.Since(begun) > 30*time.Second {
		t.Errorf("the process ended with %v after %v", err, time.Since(begun))
	}
}

// TestExitStatusOfAStop checks the exit status: 0 when all work has ended or was handed
// over, such as a run that another process continues; 1 when work was cut off.
func TestExitStatusOfAStop(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	handing := startProcess(t, cfg, "STOA_STOP_TIMEOUT=3s")
	c, id := register(t, serverAt(handing.url), "owner@example.com")
	address, release := silentServer(t)
	c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "postgresql", "connectionString": "postgres://u:p@" + address + "/d?sslmode=disable"},
		"Prefer", "wait=0").want(http.StatusAccepted)
	handing.end(t) // checks for status 0

	next := startProcess(t, cfg, "STOA_STOP_TIMEOUT=3s")
	c.url = next.url
	release()
	testkit.Eventually(t, testkit.Timeout, "the run has ended at the next process", func() bool {
		return c.call("GET", "/api/stores/"+id+"/provisioning", nil).want(http.StatusOK).at("state") == "failed"
	})
	const body = `{"type":"managed"}`
	conn := dialServer(t, serverAt(next.url))
	fmt.Fprintf(conn, "POST /api/stores/%s/connect-database HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", id, c.token, len(body))
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("%q %v", line, err) // the handler waits for a body that is never sent
	}
	if err := next.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := next.cmd.Wait(); err == nil || !strings.Contains(next.log.String(), "requests that did not finish and were cut off: 1") {
		t.Errorf("ended with %v:\n%s", err, next.log)
	}
}

// TestStopSettings checks the accepted values and the defaults of the two settings.
func TestStopSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args  []string
		drain time.Duration
		fault string // "" for a valid value
	}{
		{nil, 0, ""},
		{[]string{"--env=production"}, 5 * time.Second, ""},
		{[]string{"--env=production", "--stop-timeout=5s"}, time.Second, ""},
		{[]string{"--env=production", "--drain-delay=0s"}, 0, ""},
		{[]string{"--drain-delay=7s"}, 7 * time.Second, ""},
		{[]string{"--drain-delay=25s"}, 25 * time.Second, "STOA_DRAIN_DELAY must be between 0s and less than STOA_STOP_TIMEOUT, which is 25s"},
		{[]string{"--drain-delay=-1s"}, -time.Second, "STOA_DRAIN_DELAY must be"},
		{[]string{"--stop-timeout=0s"}, 0, "STOA_STOP_TIMEOUT must be between 1s and 1h0m0s"},
		{[]string{"--stop-timeout=2h"}, 0, "STOA_STOP_TIMEOUT must be"},
	} {
		var config cli.Commands
		parser, err := kong.New(&config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(append([]string{"serve"}, c.args...)); err != nil {
			t.Fatal(err)
		}
		if got := config.EffectiveDrainDelay(); got != c.drain {
			t.Errorf("%v: the drain delay is %v, want %v", c.args, got, c.drain)
		}
		var faults []string
		for _, f := range config.Faults() {
			if strings.Contains(f.Name, "STOA_STOP_TIMEOUT") || strings.Contains(f.Name, "STOA_DRAIN_DELAY") {
				faults = append(faults, f.Error())
			}
		}
		if got := strings.Join(faults, "\n"); c.fault == "" && got != "" || !strings.Contains(got, c.fault) {
			t.Errorf("%v: faults %q, want %q", c.args, got, c.fault)
		}
	}
}

// TestStopBehindBalancer checks that under load over kept-alive connections a stop
// loses no request at a load balancer that never repeats a request.
func TestStopBehindBalancer(t *testing.T) {
	t.Parallel()
	program := haproxyPath(t)
	address, config := closedPort(t), strings.Builder{}
	fmt.Fprintf(&config, `defaults
	mode http
	timeout connect 2s
	timeout client 30s
	timeout server 30s
	retries 0
listen stoa
	bind %s
	option httpchk
	http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host localhost
	default-server check inter 500ms fall 2 rise 1
`, address)
	var servers []*server
	for i := range 2 {
		cfg := testConfig(t, masterdb.SQLite)
		delay := 4 * time.Second
		cfg.DrainDelay, cfg.RateLimitAddress = &delay, 0
		s := startForStop(t, cfg)
		servers = append(servers, s)
		fmt.Fprintf(&config, "\tserver stoa%d 127.0.0.1:%d\n", i, s.Listener.Addr().(*net.TCPAddr).Port)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	proxy := exec.CommandContext(t.Context(), program, "-db", "-f", file)
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Wait() })
	url := "http://" + address + "/"
	testkit.Eventually(t, testkit.Timeout, "HAProxy answers", func() bool { return status(url) == http.StatusOK })

	done, failed, asked := make(chan struct{}), make(chan string, 1000), new(atomic.Int64)
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(2 * time.Millisecond):
				}
				asked.Add(1)
				if result := getOnce(t, url); result != "200 OK" {
					select {
					case failed <- result:
					default:
					}
				}
			}
		})
	}
	testkit.Eventually(t, testkit.Timeout, "the load is on", func() bool { return asked.Load() > 50 })
	if err := servers[0].Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	after := asked.Load()
	testkit.Eventually(t, testkit.Timeout, "the other one serves", func() bool { return asked.Load() > after+50 })
	close(done)
	readers.Wait()
	t.Logf("%d requests", asked.Load())
	if n := len(failed); n > 0 {
		t.Errorf("%d of %d requests failed, the first with %s", n, asked.Load(), <-failed)
	}
	if err := servers[1].Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// getOnce returns the status, or the error.
func getOnce(t *testing.T, url string) string {
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		return err.Error()
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err.Error()
	}
	return res.Status
}
