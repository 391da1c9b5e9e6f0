package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/supabase/supabasetest"
	"github.com/stoahq/stoa/tenantdb/tenantdbtest"
)

// What is printed leads to an account that can be approved, under an authority
// that is there while the stand-in is.
func TestRun(t *testing.T) {
	t.Parallel()
	supabasetest.New(t, supabasetest.Options{}) // or skip
	c := cli{
		Listen: "127.0.0.1:0", StartTime: time.Second, Postgres: os.Getenv(tenantdbtest.PostgresEnv),
		Session: os.Getenv(tenantdbtest.PgBouncerSessionEnv), Transaction: os.Getenv(tenantdbtest.PgBouncerEnv),
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- c.run(ctx, w)
		_ = w.Close()
	}()
	var printed strings.Builder
	for lines := bufio.NewScanner(r); lines.Scan(); {
		printed.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "stoa serve") {
			break
		}
	}
	setting := func(name string) string {
		m := regexp.MustCompile(name + `=(\S+)`).FindStringSubmatch(printed.String())
		if m == nil {
			t.Fatalf("%s is not in %q", name, printed.String())
		}
		return m[1]
	}
	for _, want := range []string{"Shop, ACTIVE_HEALTHY", "Attic, INACTIVE"} {
		if !strings.Contains(printed.String(), want) {
			t.Errorf("%q is not in %q", want, printed.String())
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
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(roots); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
}
