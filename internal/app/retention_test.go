package app_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// retentionTable reads docs/retention.md. It returns the indexes that each table's rule
// uses.
func retentionTable(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "retention.md"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	name := regexp.MustCompile("`([a-z_]+)`")
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 6 || !name.MatchString(cells[1]) {
			continue
		}
		if strings.TrimSpace(cells[2]) == "" || strings.TrimSpace(cells[3]) == "" {
			t.Errorf("docs/retention.md: a cell is empty: %s", line)
		}
		indexes := []string{}
		for _, m := range name.FindAllStringSubmatch(cells[4], -1) {
			indexes = append(indexes, m[1])
		}
		out[name.FindStringSubmatch(cells[1])[1]] = indexes
	}
	return out
}

// TestEveryTableHasARetention checks that docs/retention.md lists every table of the
// master database and, for a table with a rule, the rule's index.
func TestEveryTableHasARetention(t *testing.T) {
	t.Parallel()
	documented := retentionTable(t)
	onEachMaster(t, func(t *testing.T, s *server) {
		query := `SELECT relname AS name FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')`
		if s.Master.Engine == masterdb.SQLite {
			query = `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`
		}
		var tables []string
		if err := s.Master.Select(t.Context(), &tables, query); err != nil {
			t.Fatal(err)
		}
		there := map[string]bool{}
		for _, table := range tables {
			there[table] = true
			if documented[table] == nil {
				t.Errorf("%s has no row in docs/retention.md: with what does it grow, and what ends that?", table)
			}
		}
		for table := range documented {
			if !there[table] && !strings.HasPrefix(table, "river_") { // these tables differ between the engines
				t.Errorf("docs/retention.md has a row for %s, which does not exist", table)
			}
		}
	})
}

// TestExpiriesUseTheirIndexes checks that no rule reads a whole table, on either
// engine.
func TestExpiriesUseTheirIndexes(t *testing.T) {
	t.Parallel()
	documented := retentionTable(t)
	onEachMaster(t, func(t *testing.T, s *server) {
		rules, err := s.Expiries(t.Context())
		if err != nil || len(rules) < 12 {
			t.Fatalf("%d rules, %v", len(rules), err)
		}
		used := map[string]bool{}
		for _, rule := range rules {
			plan := explain(t, s.Master, rule)
			found := false
			for _, index := range documented[rule.Table] {
				if strings.Contains(plan, index) {
					found, used[index] = true, true
				}
			}
			if !found || regexp.MustCompile(`Seq Scan|\bSCAN\b`).MatchString(plan) {
				t.Errorf("the rule for %s, by %s, uses none of %v:\n%s", rule.Table, rule.Age, documented[rule.Table], plan)
			}
		}
		ownStatements := []string{"hostname_claims", "supabase_consents", "mail_allowances"} // the tables' packages use these indexes
		for table, indexes := range documented {
			for _, index := range indexes {
				if !used[index] && !slices.Contains(ownStatements, table) {
					t.Errorf("no rule uses %s of %s", index, table)
				}
			}
		}
	})
}

func explain(t *testing.T, db *masterdb.DB, rule masterdb.Expiry) string {
	t.Helper()
	args := []any{time.Now().UTC(), 1000}
	if db.Engine == masterdb.SQLite {
		var rows []struct {
			ID, Parent, Notused int
			Detail              string
		}
		if err := db.Select(t.Context(), &rows, "EXPLAIN QUERY PLAN "+rule.Statement(), args...); err != nil {
			t.Fatal(err)
		}
		lines := make([]string, len(rows))
		for i, r := range rows {
			lines[i] = r.Detail
		}
		return strings.Join(lines, "\n")
	}
	var lines []string
	if err := db.Select(t.Context(), &lines, "EXPLAIN "+rule.Statement(), args...); err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// TestExpiredRowsAreDeleted checks that the job deletes the expired rows of each rule
// and no others.
func TestExpiredRowsAreDeleted(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, id, _ := connected(t, s, "owner@example.com")
		c.proven()
		other := c.call("POST", "/api/stores", object{"name": "Other"}).want(201).text("id")
		c.call("POST", "/api/stores/"+id+"/invitations", object{"email": "guest@example.com", "role": "viewer"}).want(201)
		for range 2 {
			c.withKey(id, "store:read")
		}
		change := func(query string, args ...any) {
			t.Helper()
			if err := s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
				_, err := tx.Exec(t.Context(), query, args...)
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		old := time.Now().UTC().Add(-500 * 24 * time.Hour).Truncate(time.Microsecond)
		recent := time.Now().UTC().Add(-24 * time.Hour).Truncate(time.Microsecond)
		for name, at := range map[string]time.Time{"old": old, "recent": recent} {
			change(`INSERT INTO stripe_events (id, type, payload, received_at, applied_at) VALUES ($1, 'x', '{}', $2, $2)`, name, at)
			change(`INSERT INTO stripe_events (id, type, payload, received_at) VALUES ($1, 'x', '{}', $2)`, name+"-refused", at)
			change(`INSERT INTO credit_crossings (store_id, version, threshold, available, crossed_at, announced_at)
				SELECT $1, CASE WHEN $2 = 'old' THEN 1001 ELSE 1002 END, 1, 0, $3, $3`, id, name, at)
			change(`INSERT INTO audit_events (id, action, outcome, created_at) VALUES ($1, $2, 'success', $3)`, stoa.NewID[stoa.EventID](), name, at)
		}
		for store, runs := range map[string][]time.Time{id: {old, recent}, other: {old, old}} {
			for _, at := range runs {
				run := stoa.NewID[stoa.RunID]()
				change(`INSERT INTO provisioning_runs (id, store_id, state, attempt, created_at, finished_at) VALUES ($1, $2, 'failed', 1, $3, $3)`, run, store, at)
				change(`INSERT INTO provisioning_events (run_id, seq, attempt, step, state, created_at) VALUES ($1, 1, 1, '', 'failed', $2)`, run, at)
			}
		}
		change(`UPDATE invitations SET expires_at = $1`, old)
		change(`UPDATE api_keys SET revoked_at = $1 WHERE id = (SELECT min(CAST(id AS text)) FROM api_keys)`+
			map[masterdb.Engine]string{masterdb.Postgres: `::uuid`}[s.Master.Engine], old)
		if err := s.DeleteExpired(t.Context(), app.DeleteExpired{}); err != nil {
			t.Fatal(err)
		}
		for query, want := range map[string]int{
			`SELECT count(*) FROM stripe_events`:                                      3, // without the old one that was applied
			`SELECT count(*) FROM credit_crossings`:                                   1,
			`SELECT count(*) FROM audit_events WHERE action = 'old'`:                  0,
			`SELECT count(*) FROM audit_events WHERE action = 'recent'`:               1,
			`SELECT count(*) FROM provisioning_runs WHERE store_id = '` + id + `'`:    2, // without the old one
			`SELECT count(*) FROM provisioning_runs WHERE store_id = '` + other + `'`: 1, // the latest one
			`SELECT count(*) FROM invitations`:                                        0,
			`SELECT count(*) FROM one_time_tokens WHERE purpose = 'invitation'`:       0,
			`SELECT count(*) FROM api_keys`:                                           1,
			`SELECT count(*) FROM sessions`:                                           1,
		} {
			var n int
			if err := s.Master.Get(t.Context(), &n, query); err != nil || n != want {
				t.Errorf("%s: %d, %v, want %d", query, n, err, want)
			}
		}
		c.call("GET", "/api/stores/"+other+"/provisioning", nil).want(200).is("failed", "state")
	})
}

// TestRestrictedRoleDeletesOnlyExpired checks that a server whose role owns nothing
// deletes expired rows. It can neither delete other rows of the audit log, nor change
// them, nor change the retention.
func TestRestrictedRoleDeletesOnlyExpired(t *testing.T) {
	t.Parallel()
	r := newRestricted(t)
	keep := 1000 * time.Hour
	r.owner.AuditRetention = &keep
	if status, out, errOut := r.migrate("--grant-to="+r.role, "--audit-retention=1000h"); status != 0 {
		t.Fatalf("status %d: %s%s", status, out, errOut)
	}
	other := 24 * time.Hour // the server may not set it
	r.server.AuditRetention = &other
	s := startServer(t, r.server)
	const entry = `INSERT INTO audit_events (id, action, outcome, created_at) SELECT gen_random_uuid(), '%s', 'success', now() - interval '%s hours' FROM generate_series(1, 5)`
	for action, hours := range map[string]string{"old": "1002", "fresh": "900"} {
		if err := r.exec(r.server, fmt.Sprintf(entry, action, hours)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DeleteExpired(t.Context(), app.DeleteExpired{}); err != nil {
		t.Error(err)
	}
	if got, err := audit.Retention(t.Context(), s.Master); err != nil || got != keep {
		t.Errorf("the audit log is kept for %v, %v, want %v", got, err, keep)
	}
	r.forbidden(`UPDATE audit_retention SET keep_seconds = 86400`)
	r.forbidden(`DELETE FROM audit_retention`)
	r.forbidden(`TRUNCATE audit_events`)
	r.forbidden(`UPDATE audit_events SET details = '{}'`)
	r.forbidden(`ALTER FUNCTION refuse_early_delete() RESET search_path`)
	r.forbidden(`ALTER TABLE audit_events DISABLE TRIGGER ALL`)
	for _, attempt := range []string{
		`DELETE FROM audit_events WHERE action = 'fresh'`,
		`CREATE TEMPORARY TABLE audit_retention AS SELECT true AS one, 1 AS keep_seconds; DELETE FROM audit_events WHERE action = 'fresh'`,
		`SET search_path = pg_temp, public; CREATE TEMPORARY TABLE audit_retention AS SELECT true AS one, 1 AS keep_seconds; DELETE FROM public.audit_events WHERE action = 'fresh'`,
	} {
		if err := r.exec(r.server, attempt); err == nil || !strings.Contains(err.Error(), "append-only until they expire") {
			t.Errorf("%s: %v, want that it is refused", attempt, err)
		}
	}
	var left []string
	if err := s.Master.Select(t.Context(), &left, `SELECT action FROM audit_events WHERE action IN ('old', 'fresh')`); err != nil || fmt.Sprint(left) != "[fresh fresh fresh fresh fresh]" {
		t.Errorf("%v are left, %v", left, err)
	}
}

func TestRetentionSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ audit, event, want string }{
		{"0s", "0s", ""},
		{"24h", "744h", ""},
		{"87600h", "87600h", ""},
		{"23h", "2160h", "STOA_AUDIT_RETENTION must be"},
		{"-1h", "2160h", "STOA_AUDIT_RETENTION must be"},
		{"87601h", "2160h", "STOA_AUDIT_RETENTION must be"},
		{"24h", "743h", "STOA_EVENT_RETENTION must be"},
		{"24h", "-1s", "STOA_EVENT_RETENTION must be"},
	} {
		cfg := testConfig(t, masterdb.SQLite)
		cfg.EncryptionKey, cfg.JWTSecret = keyring.Generate("1"), keyring.Generate("1")
		audit, err1 := time.ParseDuration(c.audit)
		event, err2 := time.ParseDuration(c.event)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		cfg.AuditRetention, cfg.EventRetention = &audit, event
		if err := cfg.Check(); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s, %s: %v, want %q", c.audit, c.event, err, c.want)
		}
	}
}

// TestAuditRetentionIsRemembered checks that a retention applies until it is set again,
// not only in the process that set it.
func TestAuditRetentionIsRemembered(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			for _, c := range []struct {
				set  time.Duration // -1: not set
				want time.Duration
			}{{-1, 9600 * time.Hour}, {1000 * time.Hour, 1000 * time.Hour}, {-1, 1000 * time.Hour}, {0, 0}, {-1, 0}} {
				cfg.AuditRetention = nil
				if c.set >= 0 {
					cfg.AuditRetention = &c.set
				}
				s := startServer(t, cfg)
				if got, err := audit.Retention(t.Context(), s.Master); err != nil || got != c.want {
					t.Errorf("set to %v: kept for %v, %v, want %v", c.set, got, err, c.want)
				}
				if rules, err := s.Expiries(t.Context()); err != nil || len(rules) == 0 {
					t.Error(rules, err)
				}
			}
			master := masterdbtest.Open(t, cfg.MasterURL())
			var entries []string
			if err := master.Select(t.Context(), &entries, `SELECT details FROM audit_events WHERE action = 'audit.retention_set' ORDER BY id`); err != nil ||
				len(entries) != 2 || entries[0] != `{"command":"serve","new":"1000h0m0s","old":"9600h0m0s"}` {
				t.Errorf("the log has %v, %v", entries, err)
			}
		})
	}
}
