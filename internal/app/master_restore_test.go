package app_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// masterFlags are the flags of a command that uses the configuration's master.
func masterFlags(cfg *config.Config) []string {
	return []string{"--data-dir=" + cfg.DataDir, "--master-db-url=" + cfg.MasterDBURL.Reveal()}
}

// backUp makes a backup of the master and returns its file, and that of the identity.
func backUp(t *testing.T, cfg *config.Config) (file, identity string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	testkit.Must(t, err)
	dir := t.TempDir()
	file, identity = filepath.Join(dir, "master.stoa"), filepath.Join(dir, "identity.txt")
	testkit.Must(t, os.WriteFile(identity, []byte("# a comment\n"+id.String()+"\n"), 0o600))
	args := append([]string{"backup", "--master", "--output=" + file, "--backup-recipients=" + id.Recipient().String()}, masterFlags(cfg)...)
	if status, out, errOut := command(t, args...); status != 0 {
		t.Fatalf("status %d: %s%s", status, out, errOut)
	}
	return file, identity
}

func newRecipient(t *testing.T) string {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	testkit.Must(t, err)
	return id.Recipient().String()
}

// emptyMaster returns the configuration of a platform without a master, with the same keys.
func emptyMaster(t *testing.T, from *config.Config) *config.Config {
	t.Helper()
	cfg := *from
	cfg.DataDir = filepath.Join(t.TempDir(), "data")
	testkit.Must(t, os.MkdirAll(cfg.DataDir, 0o700))
	keys, err := os.ReadFile(from.KeyFile())
	testkit.Must(t, err)
	testkit.Must(t, os.WriteFile(cfg.KeyFile(), keys, 0o600))
	cfg.MasterDBURL = keyring.NewSecret("sqlite:" + filepath.Join(cfg.DataDir, "master.db"))
	if !strings.HasPrefix(from.MasterDBURL.Reveal(), "sqlite:") {
		cfg.MasterDBURL = keyring.NewSecret(masterdbtest.URL(t, masterdb.Postgres))
		conn, err := pgx.Connect(t.Context(), cfg.MasterDBURL.Reveal())
		testkit.Must(t, err)
		defer conn.Close(t.Context()) //nolint:errcheck // nothing is pending
		_, err = conn.Exec(t.Context(), `DROP SCHEMA public CASCADE; CREATE SCHEMA public`)
		testkit.Must(t, err)
	}
	return &cfg
}

// TestMasterRestoreSurvivesKills restores a master in a process that is killed at random
// moments. No server ever starts on a part of it. The last restore is complete: people sign
// in, the work of the time of the backup goes on, and the ledger adds up.
func TestMasterRestoreSurvivesKills(t *testing.T) {
	t.Parallel()
	kills := 12
	if testing.Short() {
		kills = 3
	}
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			source := testConfig(t, engine)
			s := startServer(t, source)
			owner, store := register(t, s, "owner@example.com")
			job := leaveJobRunning(t, s)
			file, identity := backUp(t, source)
			target := emptyMaster(t, source)
			restore := []string{"restore", file, "--master", "--identity=" + identity}
			complete, interrupted := false, 0
			for i := 0; i < kills && !complete; i++ {
				killRestore(t, target, strings.Join(restore, " "), time.Duration(i%4+1)*100*time.Millisecond+rand.N(200*time.Millisecond))
				if complete = restoredOrRefused(t, target); !complete {
					interrupted++
				}
			}
			if interrupted == 0 {
				t.Error("no restore was interrupted")
			}
			if !complete {
				if status, out, errOut := command(t, append(restore, masterFlags(target)...)...); status != 0 || !strings.Contains(out, "credits verify") {
					t.Fatalf("status %d: %s%s", status, out, errOut)
				}
			}
			checkRestored(t, target, owner, store, job)
		})
	}
}

// leaveJobRunning makes a finished job of the server one that it was running when the backup
// was made, and returns the job's id.
func leaveJobRunning(t *testing.T, s *server) (id int64) {
	t.Helper()
	testkit.Eventually(t, testkit.Timeout, "a job has run", func() bool {
		return s.Master.Get(t.Context(), &id, `SELECT id FROM river_job WHERE state = 'completed' ORDER BY id DESC LIMIT 1`) == nil
	})
	var process string
	testkit.Must(t, s.Master.Get(t.Context(), &process, `SELECT name FROM processes`))
	by := `ARRAY['` + process + `']`
	if s.Master.Engine == masterdb.SQLite {
		by = `jsonb('["` + process + `"]')`
	}
	execMaster(t, s, fmt.Sprintf(`UPDATE river_job SET state = 'running', finalized_at = NULL, attempted_by = %s WHERE id = %d`, by, id))
	return id
}

// killRestore runs a command for that long and kills it.
func killRestore(t *testing.T, cfg *config.Config, line string, after time.Duration) {
	t.Helper()
	self, err := os.Executable()
	testkit.Must(t, err)
	cmd := exec.Command(self, "-test.run="+onlyCommandProcess)
	cmd.Env = append(os.Environ(), commandProcess+"="+line, "STOA_DATA_DIR="+cfg.DataDir, "MASTER_DB_URL="+cfg.MasterDBURL.Reveal())
	stdin, err := cmd.StdinPipe()
	testkit.Must(t, err)
	testkit.Must(t, cmd.Start())
	<-time.After(after)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	_ = stdin.Close()
}

// restoredOrRefused reports whether the master is complete. If it is not, no server starts on
// what there is of it.
func restoredOrRefused(t *testing.T, cfg *config.Config) bool {
	t.Helper()
	url := cfg.MasterDBURL.Reveal()
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		_, err := os.Stat(path)
		return err == nil
	}
	db, err := masterdb.Open(t.Context(), url)
	testkit.Must(t, err)
	defer db.Close()
	var relations int
	testkit.Must(t, db.Get(t.Context(), &relations, `SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace`))
	schema, err := db.Schema(t.Context())
	testkit.Must(t, err)
	if relations == 0 || !schema.Restoring {
		return relations > 0
	}
	s, err := launch(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if !errors.Is(err, masterdb.ErrRestoreIncomplete) {
		t.Errorf("a server starts on an incomplete master: %v", err)
		if err == nil {
			_ = s.Stop()
		}
	}
	if status, _, errOut := command(t, append([]string{"stores", "list"}, masterFlags(cfg)...)...); status == 0 || !strings.Contains(errOut, "stoa restore --master") {
		t.Errorf("a command uses an incomplete master: %d %s", status, errOut)
	}
	return false
}

func checkRestored(t *testing.T, cfg *config.Config, owner client, store string, job int64) {
	t.Helper()
	s := startServer(t, cfg)
	owner.url, owner.s = s.URL, s
	owner.call("GET", "/api/stores/"+store, nil).want(http.StatusUnauthorized) // its session has ended
	again := client{t: t, url: s.URL, s: s}
	again.token = again.call("POST", "/api/auth/login", object{"email": "owner@example.com", "password": testPassword}).want(http.StatusOK).text("accessToken")
	again.call("GET", "/api/stores/"+store, nil).want(http.StatusOK)
	testkit.Eventually(t, testkit.Timeout, "the job that was running runs again", func() bool {
		var state string
		testkit.Must(t, s.Master.Get(t.Context(), &state, `SELECT state FROM river_job WHERE id = $1`, job))
		return state == "completed"
	})
	testkit.Eventually(t, testkit.Timeout, "the process of the time of the backup has ended", func() bool {
		var processes int
		testkit.Must(t, s.Master.Get(t.Context(), &processes, `SELECT count(*) FROM processes`))
		return processes == 1
	})
	var entries int
	testkit.Must(t, s.Master.Get(t.Context(), &entries, `SELECT count(*) FROM audit_events WHERE action = $1`, audit.MasterRestored))
	if entries != 1 {
		t.Errorf("%d entries of the restore in the audit log", entries)
	}
	for _, args := range [][]string{{"credits", "verify"}, {"doctor"}} {
		if status, out, errOut := command(t, append(args, masterFlags(cfg)...)...); status != 0 {
			t.Errorf("%v: status %d: %s%s", args, status, out, errOut)
		}
	}
}

// TestMasterBackupWithoutOwnership makes a backup by the role that servers have, which may
// neither change the schema nor the ledger.
func TestMasterBackupWithoutOwnership(t *testing.T) {
	t.Parallel()
	masterdbtest.NeedsPostgres(t)
	r := newRestricted(t)
	r.grant()
	s := startServer(t, r.server)
	register(t, s, "owner@example.com")
	file, identity := backUp(t, r.server)
	target := emptyMaster(t, r.server)
	if status, out, errOut := command(t, append([]string{"restore", file, "--master", "--identity=" + identity}, masterFlags(target)...)...); status != 0 {
		t.Fatalf("status %d: %s%s", status, out, errOut)
	}
	var users int
	db := masterdbtest.Open(t, target.MasterDBURL.Reveal())
	testkit.Must(t, db.Get(context.WithoutCancel(t.Context()), &users, `SELECT count(*) FROM users`))
	if users != 1 {
		t.Errorf("%d users", users)
	}
}

// TestBackupCommands checks what the commands say when something is missing.
func TestBackupCommands(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	startServer(t, cfg)
	file, identity := backUp(t, cfg)
	secret := filepath.Join(t.TempDir(), "secret")
	testkit.Must(t, os.WriteFile(secret, []byte("AGE-SECRET-KEY-1DONOTSHOW\n"), 0o600))
	empty := emptyMaster(t, cfg)
	for _, c := range []struct {
		cfg  *config.Config
		args []string
		want string
	}{
		{cfg, []string{"backup"}, "--master"},
		{cfg, []string{"backup", "--master"}, "stoa keys generate --identity"},
		{cfg, []string{"backup", "--master", "--backup-recipients=AGE-SECRET-KEY-1DONOTSHOW"}, "public key"},
		{empty, []string{"backup", "--master"}, "no master database"},
		{empty, []string{"restore", file, "--master"}, "--identity"},
		{cfg, []string{"backup", "shop", "--master"}, "or --master"},
		{cfg, []string{"backup", "no-such-store"}, "no-such-store"},
		{cfg, []string{"backups", "download", "shop", "x", "--output=" + file + "x"}, "STOA_ARCHIVE_PASSPHRASE"},
		{cfg, []string{"backups", "upload", "shop", file}, "--identity"},
		{cfg, []string{"restore", "no-such-store", "--yes"}, "no-such-store"},
		{cfg, []string{"restore", "shop", "--master", "--identity=" + identity, "--backup=x"}, "--backup"},
		{empty, []string{"restore", file, "--identity=" + identity}, "--master"},
		{empty, []string{"restore", file, "--master", "--identity=" + secret}, "AGE-SECRET-KEY-1…"},
		{empty, []string{"restore", file, "--master", "--identity=" + identity + "x"}, "no such file"},
		{empty, []string{"restore", file + "x", "--master", "--identity=" + identity}, "no such file"},
		{empty, []string{"restore", identity, "--master", "--identity=" + identity}, "damaged"},
		{empty, []string{"restore", "newest", "--master", "--identity=" + identity}, "no backup of a master"},
		{empty, []string{"restore", "master/none.stoa", "--master", "--identity=" + identity}, "no archive of this name"},
		{cfg, []string{"restore", file, "--master", "--identity=" + identity}, "not changed"},
	} {
		flags := []string{"--data-dir=" + c.cfg.DataDir}
		if c.cfg == cfg {
			flags = masterFlags(cfg)
		}
		status, _, errOut := command(t, append(c.args, flags...)...)
		if status == 0 || !strings.Contains(errOut, c.want) || strings.Contains(errOut, "DONOTSHOW") {
			t.Errorf("%v: status %d, %q, want %q", c.args, status, errOut, c.want)
		}
	}
	// By name and by age, from the storage.
	id, err := os.ReadFile(identity)
	testkit.Must(t, err)
	pair, err := age.ParseX25519Identity(strings.TrimSpace(strings.TrimPrefix(string(id), "# a comment\n")))
	testkit.Must(t, err)
	storage := "--backup-storage=" + filepath.Join(t.TempDir(), "storage")
	for range 2 {
		if status, out, errOut := command(t, append([]string{"backup", "--master", storage, "--backup-recipients=" + pair.Recipient().String()}, masterFlags(cfg)...)...); status != 0 {
			t.Fatalf("status %d: %s%s", status, out, errOut)
		}
	}
	if status, out, errOut := command(t, "restore", "newest", "--master", storage, "--identity="+identity, "--data-dir="+empty.DataDir, "--json"); status != 0 || !strings.Contains(out, `"name":"master/`) {
		t.Fatalf("status %d: %s%s", status, out, errOut)
	}
}
