package app_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// TestLongLists lists more users than are read at a time: page by page, and all at once.
func TestLongLists(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			s := startServer(t, cfg)
			const count = 1001
			err := s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
				for i := range count {
					err := tx.ExecLater(t.Context(), `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
						VALUES ($1, $2, 'x', 'A', 'B', $3, $3)`, stoa.NewID[stoa.UserID](), fmt.Sprintf("u%d@example.com", i), tx.Now)
					if err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			list := func(args ...string) (ids []string, errOut string) {
				t.Helper()
				status, out, errOut := command(t, append(append([]string{"users", "list", "--json"}, args...), masterFlags(cfg)...)...)
				var rows []struct{ ID string }
				if err := json.Unmarshal([]byte(out), &rows); status != 0 || err != nil {
					t.Fatalf("%v: status %d, %v, %s", args, status, err, errOut)
				}
				for _, row := range rows {
					ids = append(ids, row.ID)
				}
				return ids, errOut
			}
			all, errOut := list("--limit=0")
			if len(all) != count || errOut != "" || !slices.IsSortedFunc(all, func(a, b string) int { return strings.Compare(b, a) }) {
				t.Fatalf("%d users, want %d, the newest first; %s", len(all), count, errOut)
			}
			if ids, errOut := list(); !slices.Equal(ids, all[:100]) || !strings.Contains(errOut, "--after "+all[99]) {
				t.Errorf("%d users by default; %s", len(ids), errOut)
			}
			if ids, errOut := list("--limit=700", "--after="+all[99]); !slices.Equal(ids, all[100:800]) || !strings.Contains(errOut, "--after "+all[799]) {
				t.Errorf("%d users after the 100th; %s", len(ids), errOut)
			}
			if ids, errOut := list("--limit=201", "--after="+all[799]); !slices.Equal(ids, all[800:]) || errOut != "" {
				t.Errorf("%d users at the end; %s", len(ids), errOut)
			}
			if ids, errOut := list("--after=" + all[count-1]); ids != nil || errOut != "" {
				t.Errorf("after the last one: %v; %s", ids, errOut)
			}
			status, out, _ := command(t, append([]string{"users", "list", "--limit=0"}, masterFlags(cfg)...)...)
			if lines := strings.Count(out, "\n"); status != 0 || lines != count+1 || strings.Count(out, "EMAIL") != 1 {
				t.Errorf("status %d, %d lines in the table, want %d", status, lines, count+1)
			}
			for _, wrong := range []string{"--limit=-1", "--after=nobody"} {
				if status, out, errOut := command(t, append([]string{"users", "list", wrong}, masterFlags(cfg)...)...); status == 0 || out != "" || !strings.Contains(errOut, wrong[:7]) {
					t.Errorf("%s: status %d, %s%s", wrong, status, out, errOut)
				}
			}
		})
	}
}
