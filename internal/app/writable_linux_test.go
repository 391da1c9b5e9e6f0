package app_test

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// mounted mounts a small file system for the test. It skips the test without the
// permission to mount.
func mounted(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m,mode=0700")
	if errors.Is(err, fs.ErrPermission) {
		t.Skip("this user may not mount file systems")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func readOnly(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
}

func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filling"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // writes have reported any error
	for err == nil {
		_, err = f.Write(make([]byte, 1<<16))
	}
	for err = nil; err == nil; {
		_, err = f.Write(make([]byte, 512))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// TestUnwritableDirectories checks that doctor and serve name a directory that is not
// writable, with the cause and a remedy, and that serve leaves no files.
func TestUnwritableDirectories(t *testing.T) {
	t.Parallel()
	for _, fault := range []struct {
		name, says string
		do         func(*testing.T, string)
	}{
		{"read-only", "file system is read-only", readOnly},
		{"full", "no space left", fill},
	} {
		for place, flags := range map[string]func(bad, good string) []string{
			"data directory": func(bad, _ string) []string { return []string{"--data-dir=" + bad} },
			"data directory to be made": func(bad, _ string) []string {
				return []string{"--data-dir=" + filepath.Join(bad, "new", "data")}
			},
			"master elsewhere": func(bad, good string) []string {
				return []string{"--data-dir=" + good, "--master-db-url=sqlite:" + filepath.Join(bad, "master.db")}
			},
			"stores": func(bad, good string) []string {
				if err := os.Symlink(bad, filepath.Join(good, "stores")); err != nil {
					t.Error(err)
				}
				return []string{"--data-dir=" + good}
			},
			"mail": func(bad, good string) []string {
				if err := os.Symlink(bad, filepath.Join(good, "mail")); err != nil {
					t.Error(err)
				}
				return []string{"--data-dir=" + good}
			},
		} {
			t.Run(fault.name+" "+place, func(t *testing.T) {
				t.Parallel()
				bad, good := mounted(t), filepath.Join(t.TempDir(), "good")
				if err := os.Mkdir(good, 0o700); err != nil {
					t.Fatal(err)
				}
				fault.do(t, bad)
				args := append(flags(bad, good), "--port=0")
				for _, name := range []string{"doctor", "serve"} {
					status, out, errs := command(t, append([]string{name}, args...)...)
					if said := out + errs; status == 0 || !strings.Contains(said, fault.says) || !strings.Contains(said, bad) && !strings.Contains(said, good) {
						t.Errorf("%s: status %d\n%s", name, status, said)
					}
				}
			})
		}
	}
}

// TestReadOnlyMaster checks that commands that only read report it too.
func TestReadOnlyMaster(t *testing.T) {
	t.Parallel()
	dir := mounted(t)
	db := masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite))
	path := filepath.Join(dir, "master.db")
	if err := db.Tx(t.Context(), func(*masterdb.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Writer().ExecContext(t.Context(), `VACUUM INTO ?`, path); err != nil {
		t.Fatal(err)
	}
	readOnly(t, dir)
	for _, args := range []string{"stores list", "migrate", "users list"} {
		status, out, errs := command(t, append(strings.Fields(args), "--data-dir="+t.TempDir(), "--master-db-url=sqlite:"+path)...)
		if said := out + errs; status == 0 || !strings.Contains(said, "file system is read-only") || !strings.Contains(said, dir) {
			t.Errorf("%s: status %d\n%s", args, status, said)
		}
	}
}

// TestWritableDirectories checks that a successful check leaves no files, and that
// causes are distinguished.
func TestWritableDirectories(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := config.CheckWritable(filepath.Join(dir, "not", "yet")); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v was left, %v", left, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := config.CheckWritable(file); err == nil || !strings.Contains(err.Error(), "a file is in its place") {
		t.Errorf("a file: %v", err)
	}
	for errno, says := range map[syscall.Errno]string{syscall.EDQUOT: "no space left", syscall.EACCES: "may not", syscall.EPERM: "may not", syscall.EIO: "input/output error"} {
		if err := config.NewUnwritable(dir, &fs.PathError{Op: "open", Path: dir, Err: errno}); !strings.Contains(err.Error(), says) || !errors.Is(err, errno) {
			t.Errorf("%v: %v", errno, err)
		}
	}
}

// TestStoresDiskIsFull checks a full disk of the embedded stores: shoppers can read, a
// writer is told that there is no space and when to retry, the operator sees it, and
// everything works again once there is space.
func TestStoresDiskIsFull(t *testing.T) {
	t.Parallel()
	disk := mounted(t)
	cfg := testConfig(t, masterdb.SQLite)
	cfg.PrivateListen = "127.0.0.1:0"
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(disk, filepath.Join(cfg.DataDir, "stores")); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, cfg)
	owner, id, host := connected(t, s, "full@example.com")
	front := client{t: t, url: s.URL}
	health := func() string {
		return client{t: t, url: s.PrivateURL}.call("GET", "/health", nil).want(http.StatusOK).raw
	}
	if raw := health(); strings.Contains(raw, "no space") {
		t.Error(raw)
	}
	rename := func(n int) answer {
		return owner.call("PATCH", "/api/stores/"+id, object{"description": strings.Repeat(strconv.Itoa(n), 2000)})
	}
	rename(1).want(http.StatusOK)
	fill(t, disk)
	var refused answer
	testkit.Eventually(t, testkit.Timeout, "a change finds no room", func() bool { refused = rename(2); return refused.status != http.StatusOK })
	if refused.status != http.StatusServiceUnavailable || refused.header.Get("Retry-After") == "" {
		t.Errorf("a change: %d, %v, %s", refused.status, refused.header, refused.raw)
	}
	front.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK)
	other := owner.call("POST", "/api/stores", object{"name": "Another"}).want(http.StatusCreated).text("id")
	if a := owner.call("POST", "/api/stores/"+other+"/connect-database", object{"type": "managed"}); a.status < 400 || a.status == http.StatusInternalServerError {
		t.Errorf("a new store: %d, %s", a.status, a.raw)
	} else {
		t.Logf("a new store: %s", a.raw)
	}
	if raw := health(); !strings.Contains(raw, "no space") {
		t.Errorf("the operator is not told: %s", raw)
	}
	if err := os.Remove(filepath.Join(disk, "filling")); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, testkit.Timeout, "a change is stored again", func() bool { return rename(3).status == http.StatusOK })
	owner.call("POST", "/api/stores/"+other+"/connect-database", object{"type": "managed"}).want(http.StatusOK)
}
