package app_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

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
	if _, out, _ := f.stoa("doctor"); !strings.Contains(out, "1 stores have later ones") {
		t.Errorf("without any here: %s", out)
	}
}
