package app_test

import (
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// TestCommandsOnANewerSchema checks every command that opens the master database with a
// newer schema. A refusal states the version found and what to do. A schema that allows
// this release is used.
func TestCommandsOnANewerSchema(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			flags := []string{"--data-dir=" + cfg.DataDir, "--master-db-url=" + cfg.MasterDBURL.Reveal(), "--port=0"}
			db := masterdbtest.Open(t, cfg.MasterDBURL.Reveal())
			own, err := db.Schema(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			change := func(query string, args ...any) {
				t.Helper()
				err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
					_, err := tx.Exec(t.Context(), query, args...)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			change(`INSERT INTO goose_db_version (version_id, is_applied) VALUES ($1, true)`, own.Binary+1)
			commands := []string{"migrate", "doctor", "stores list", "prices list", "tenants status", "demo"}
			for _, args := range commands {
				if _, out, errs := command(t, append(strings.Fields(args), flags...)...); strings.Contains(out+errs, masterdb.ErrSchemaTooNew.Error()) {
					t.Errorf("'stoa %s' on a newer schema that allows this release:\n%s%s", args, out, errs)
				}
			}
			var log syncBuffer
			s, err := launch(t.Context(), cfg, cfg.Logger(&log))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Stop(); err != nil || !strings.Contains(log.String(), "newer than this release") {
				t.Errorf("serve on a newer schema that allows this release: %v\n%s", err, log.String())
			}

			change(`UPDATE schema_compatibility SET oldest_binary = $1`, own.Binary+1)
			for _, args := range append(commands, "serve") {
				status, out, errs := command(t, append(strings.Fields(args), flags...)...)
				if said := out + errs; status == 0 || !strings.Contains(said, masterdb.ErrSchemaTooNew.Error()) || strings.Contains(said, "run 'stoa migrate'") {
					t.Errorf("'stoa %s' on a schema that needs a newer release: status %d\n%s", args, status, said)
				}
			}
		})
	}
}
