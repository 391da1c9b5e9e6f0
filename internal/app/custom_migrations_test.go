package app_test

import (
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// TestCustomMigrationsWithoutFolder checks that a merchant learns from the connection and from
// the test of a database that the platform has no custom migrations for its engine, but nothing
// about the operator's folders, which the log names.
func TestCustomMigrationsWithoutFolder(t *testing.T) {
	t.Parallel()
	cfg, log := testConfig(t, masterdb.SQLite), &syncBuffer{}
	cfg.TenantMigrations = t.TempDir()
	folder := filepath.Join(cfg.TenantMigrations, "mysql")
	if err := errors.Join(os.Mkdir(folder, 0o700),
		os.WriteFile(filepath.Join(folder, "00001_more.sql"), []byte("-- +goose Up\nCREATE TABLE more (id integer PRIMARY KEY);\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	unlimited(cfg)
	s, err := launch(t.Context(), cfg, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop() })
	c, id := register(t, s, "owner@example.com")
	refused := c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "managed"}).problem(http.StatusServiceUnavailable, "migration_failed")
	tested := c.call("POST", "/api/stores/"+id+"/database/test", connectBody(t, credential.PostgreSQL)).want(http.StatusOK).
		is(false, "ok").is("migration_failed", "error", "code")
	for _, a := range []answer{refused, tested} {
		if strings.Contains(a.raw, "sqlite") || strings.Contains(a.raw, "folder") || !strings.Contains(a.raw, "operator") {
			t.Errorf("the merchant is told %s", a.raw)
		}
	}
	if refused.text("remedy") == "" {
		t.Errorf("no remedy: %s", refused.raw)
	}
	for _, engine := range []string{"sqlite", "postgres"} {
		if !strings.Contains(log.String(), `no folder \"`+engine) {
			t.Errorf("the log does not name the folder of %s: %s", engine, log.String())
		}
	}
}

// TestCustomMigrationsOutOfOrder checks that after a custom migration was added below one
// that has run, neither the server nor a command proceeds without it. The error names
// the file and the stores.
func TestCustomMigrationsOutOfOrder(t *testing.T) {
	t.Parallel()
	f := newFleetBench(t)
	one := f.store(credential.SQLite, nil)
	plain := f.flags
	f.flags = append(f.flags, f.notes())
	dir := strings.TrimPrefix(f.flags[len(f.flags)-1], "--tenant-migrations=")
	rename := func(from, to string) {
		for _, folder := range []string{"sqlite", "postgres", "mysql"} {
			f.must(os.Rename(filepath.Join(dir, folder, from), filepath.Join(dir, folder, to)))
		}
	}
	rename("00002_row.sql", "00005_row.sql")
	if status, out, errOut := f.stoa("tenants", "migrate"); status != 0 {
		t.Fatalf("status %d: %s%s", status, out, errOut)
	}
	cfg := *f.Cfg
	cfg.TenantMigrations = dir
	serves := func() error {
		s, err := launch(t.Context(), &cfg, slog.New(slog.DiscardHandler))
		if err == nil {
			f.must(s.Stop())
		}
		return err
	}
	if err := serves(); err != nil {
		t.Errorf("in order: %v", err)
	}
	for _, folder := range []string{"sqlite", "postgres", "mysql"} {
		f.must(os.WriteFile(filepath.Join(dir, folder, "00003_more.sql"), []byte("-- +goose Up\nCREATE TABLE more (id integer PRIMARY KEY);\n"), 0o600))
	}
	if err := serves(); err == nil || !strings.Contains(err.Error(), "00003_more.sql") || !strings.Contains(err.Error(), one.Slug) {
		t.Errorf("serve: %v", err)
	}
	for _, args := range []string{"tenants migrate", "doctor", "doctor --fleet", "tenants check"} {
		status, out, errOut := f.stoa(strings.Fields(args)...)
		if status != 1 || !strings.Contains(out+errOut, "00003_more.sql") || !strings.Contains(out+errOut, one.Slug) {
			t.Errorf("%s: status %d: %s%s", args, status, out, errOut)
		}
	}
	rename("00003_more.sql", "00006_more.sql")
	if err := serves(); err != nil {
		t.Errorf("above all others: %v", err)
	}
	if status, out, errOut := f.stoa("tenants", "migrate"); status != 0 {
		t.Errorf("above all others: status %d: %s%s", status, out, errOut)
	}
	f.flags = plain
	if _, out, _ := f.stoa("doctor"); !strings.Contains(out, "1 store has later ones") {
		t.Errorf("without any here: %s", out)
	}
}
