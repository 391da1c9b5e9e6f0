package app_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// openFiles and heldFiles are environment variables of a command's own process: the
// limit of its open files, and how many of them it keeps open from its start without the
// server's knowledge.
const (
	openFiles = "STOA_TEST_OPEN_FILES"
	heldFiles = "STOA_TEST_HELD_FILES"
)

func limitOpenFiles(t *testing.T) {
	t.Helper()
	n, err := strconv.ParseUint(os.Getenv(openFiles), 10, 64)
	if err != nil {
		return
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
		t.Fatal(err)
	}
	held, _ := strconv.Atoi(os.Getenv(heldFiles))
	for range held {
		if _, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFewOpenFiles checks that a server with 128 open files serves many more embedded
// stores than it can keep open, and accepts connections while clients hold more of them
// than the limit allows. It does so too when fewer files are left than it assumes, so
// that opening one fails.
func TestFewOpenFiles(t *testing.T) {
	t.Parallel()
	count := 300
	if testing.Short() {
		count = 60
	}
	f := newFleetBench(t)
	hosts := make([]string, count)
	for i := range hosts {
		m := f.store(credential.SQLite, nil)
		f.tx(func(ctx context.Context, tx *masterdb.Tx) error { return f.Registry.MapHostname(ctx, tx, m.ID) })
		hosts[i] = m.Slug + "." + f.Cfg.BaseDomain
	}
	for _, held := range []string{"0", "45"} {
		t.Run(held+" held", func(t *testing.T) { serveAll(t, f.Cfg, hosts, openFiles+"=128", heldFiles+"="+held) })
	}
}

func serveAll(t *testing.T, cfg *config.Config, hosts []string, settings ...string) {
	t.Helper()
	p := startProcess(t, cfg, settings...)
	holdIdle(t, p.url, 100)
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 16, IdleConnTimeout: time.Minute}, Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	var faults sync.Map
	for range 2 {
		inParallel(16, hosts, func(host string) {
			if err := visit(t.Context(), client, p.url, host); err != nil {
				faults.Store(host, err)
			}
		})
	}
	failed := 0
	faults.Range(func(host, err any) bool {
		if failed++; failed <= 5 {
			t.Errorf("%s: %v", host, err)
		}
		return true
	})
	log := p.end(t)
	if failed > 0 {
		t.Errorf("%d of %d stores were not served:\n%s", failed, len(hosts), log)
	}
	if !strings.Contains(log, "level=WARN msg=\"fewer embedded stores are kept open") {
		t.Errorf("the log does not say that the limit is low:\n%s", log)
	}
}

// holdIdle opens connections that send nothing, as clients with keep-alive connections
// do, and some with an incomplete request.
func holdIdle(t *testing.T, url string, n int) {
	t.Helper()
	for range n {
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		fmt.Fprint(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
}

func visit(ctx context.Context, client *http.Client, url, host string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/storefront/store", nil)
	if err != nil {
		return err
	}
	req.Host = host
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", res.Status, body)
	}
	return err
}

// inParallel calls do with each item, up to n calls at a time.
func inParallel(n int, items []string, do func(string)) {
	var wg sync.WaitGroup
	next := make(chan string)
	for range n {
		wg.Go(func() {
			for item := range next {
				do(item)
			}
		})
	}
	for _, item := range items {
		next <- item
	}
	close(next)
	wg.Wait()
}

// TestShareFiles checks that nothing is reduced when the limit allows everything, and
// that every part gets a share of any limit.
func TestShareFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit                    uint64
		embedded, conns, clients int
	}{
		{0, 200, 8, 0},
		{1 << 20, 200, 8, 1<<20 - 200*17 - 512},
		{6800, 200, 8, 6800 - 200*17 - 512},
		{4096, 200, 4, 4096 - 200*9 - 512},
		{1024, 102, 2, 1024 - 102*5 - 256},
		{128, 12, 2, 128 - 12*5 - 32},
		{8, 1, 2, 1},
	} {
		s := config.ShareFiles(c.limit, 200, 8)
		if s.Embedded != c.embedded || s.ConnsPerStore != c.conns || s.Clients != c.clients {
			t.Errorf("of %d: %+v", c.limit, s)
		}
		_, err := s.Check()
		if low := c.limit != 0 && (c.embedded < 200 || c.clients < config.LeastClients); (err != nil) != low {
			t.Errorf("of %d: %v", c.limit, err)
		}
		if enough := config.ShareFiles(s.Wanted, 200, 8); enough.Embedded != 200 || enough.ConnsPerStore != 8 || enough.Clients < config.LeastClients {
			t.Errorf("of the %d that are recommended: %+v", s.Wanted, enough)
		}
	}
}
