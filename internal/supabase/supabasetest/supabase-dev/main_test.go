package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
)

// started runs the stand-in until stop is called, and returns what it printed.
func (c cli) started(t *testing.T) (printed string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := c.run(ctx, w)
		_ = w.Close()
		done <- err
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	for lines := bufio.NewScanner(r); lines.Scan(); {
		printed += lines.Text() + "\n"
		if strings.Contains(lines.Text(), "stoa serve") {
			break
		}
	}
	return printed, stop
}

// TestRun checks that the printed settings give access to an account that can be
// approved, with an authority that exists while the stand-in runs.
func TestRun(t *testing.T) {
	t.Parallel()
	supabasetest.New(t, supabasetest.Options{}) // to skip the test without servers
	c := cli{
		Listen: "127.0.0.1:0", StartTime: time.Second, Postgres: os.Getenv(tenantdbtest.PostgresEnv),
		Session: os.Getenv(tenantdbtest.PgBouncerSessionEnv), Transaction: os.Getenv(tenantdbtest.PgBouncerEnv),
	}
	printed, stop := c.started(t)
	setting := func(name string) string {
		m := regexp.MustCompile(name + `=(\S+)`).FindStringSubmatch(printed)
		if m == nil {
			t.Fatalf("%s is not in %q", name, printed)
		}
		return m[1]
	}
	for _, want := range []string{"Shop, ACTIVE_HEALTHY", "Attic, INACTIVE"} {
		if !strings.Contains(printed, want) {
			t.Errorf("%q is not in %q", want, printed)
		}
	}
	res, err := http.Get(setting("STOA_SUPABASE_URL") + "/v1/oauth/authorize?response_type=code&redirect_uri=http://localhost&client_id=" + setting("SUPABASE_OAUTH_CLIENT_ID"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if page, err := io.ReadAll(res.Body); res.StatusCode != http.StatusOK || !strings.Contains(string(page), "Approve") {
		t.Errorf("%s %s %v", res.Status, page, err)
	}
	roots := setting("STOA_SUPABASE_CA")
	if pem, err := os.ReadFile(roots); err != nil || !strings.Contains(string(pem), "CERTIFICATE") {
		t.Errorf("authority: %s %v", pem, err)
	}
	stop()
	if _, err := os.Stat(roots); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
}

// TestStateIsKept checks that a stand-in that is restarted with a folder for its state
// prints the same refs, passwords, ports and authority file. curl can use the buttons.
func TestStateIsKept(t *testing.T) {
	t.Parallel()
	supabasetest.New(t, supabasetest.Options{}) // to skip the test without servers
	c := cli{
		Listen: "127.0.0.1:0", StartTime: time.Millisecond, State: filepath.Join(t.TempDir(), "state"), Postgres: os.Getenv(tenantdbtest.PostgresEnv),
		Session: os.Getenv(tenantdbtest.PgBouncerSessionEnv), Transaction: os.Getenv(tenantdbtest.PgBouncerEnv),
	}
	api := regexp.MustCompile(`http://127\.0\.0\.1:\d+`)
	first, stop := c.started(t)
	shop := regexp.MustCompile(`([a-z]{20})  Shop`).FindStringSubmatch(first)
	attic := regexp.MustCompile(`([a-z]{20})  Attic`).FindStringSubmatch(first)
	if shop == nil || attic == nil || !regexp.MustCompile(`password of postgres: \S{10}`).MatchString(first) {
		t.Fatalf("printed: %s", first)
	}
	stop()
	second, stop := c.started(t)
	if a, b := api.ReplaceAllString(first, "URL"), api.ReplaceAllString(second, "URL"); a != b {
		t.Errorf("printed before:\n%s\nand after:\n%s", a, b)
	}
	url := api.FindString(second)
	post := func(path string, status int) {
		t.Helper()
		client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		res, err := client.Post(url+"/dev/"+path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if text, _ := io.ReadAll(res.Body); res.StatusCode != status || len(text) == 0 {
			t.Errorf("%s: %s %s", path, res.Status, text)
		}
	}
	post("projects/"+attic[1]+"/resume", http.StatusSeeOther)
	post("projects/"+shop[1]+"/pause", http.StatusSeeOther)
	stop()
	third, stop := c.started(t)
	if !strings.Contains(third, shop[1]+"  Shop, INACTIVE") || !strings.Contains(third, attic[1]+"  Attic, ACTIVE_HEALTHY") {
		t.Errorf("after the buttons: %s", third)
	}
	url = api.FindString(third)
	for _, ref := range []string{shop[1], attic[1]} {
		post("projects/"+ref+"/remove", http.StatusSeeOther)
	}
	stop()
	if fourth, _ := c.started(t); strings.Contains(fourth, shop[1]) || strings.Contains(fourth, attic[1]) {
		t.Errorf("removed, and back: %s", fourth)
	}
}
