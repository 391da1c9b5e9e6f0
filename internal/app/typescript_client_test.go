package app_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestTypeScriptClient runs the tests of the TypeScript client. One of them follows the path of
// the README on a real platform, as TestGoClient does.
func TestTypeScriptClient(t *testing.T) {
	t.Parallel()
	needNode(t)
	s := startServer(t, testConfig(t, masterdb.SQLite))
	folder, err := buildTypeScript(repository(t))
	testkit.Must(t, err)
	files, err := filepath.Glob(filepath.Join(folder, "build/test/*.test.js"))
	testkit.Must(t, err)
	out := runNode(t, folder, append([]string{"--experimental-vm-modules", "--test", "--test-reporter=tap"}, files...), "STOA_TEST_URL="+s.URL, "STOA_TEST_WEBHOOK="+signedWebhook(t))
	if !strings.Contains(out, "# skipped 0\n") || !strings.Contains(out, "ok 1 - ") {
		t.Errorf("not every test ran:\n%s", tail(out, 30))
	}
}

// TestLockFileNamesNoRegistry keeps the address of one machine's registry out of the lock file.
func TestLockFileNamesNoRegistry(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(repository(t), "clients/typescript/package-lock.json"))
	testkit.Must(t, err)
	if !strings.Contains(string(text), `"integrity"`) || strings.Contains(string(text), `"resolved"`) {
		t.Error("package-lock.json lacks checksums, or says where packages come from: npm reads omit-lockfile-registry-resolved in .npmrc")
	}
}

// needNode skips the test on a machine without Node.js.
func needNode(t *testing.T) {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err == nil {
			continue
		}
		testkit.Unavailable(t, fmt.Sprintf("%s is missing: install Node.js 20 or newer", program))
	}
}

var typeScript struct {
	once sync.Once
	err  error
}

// buildTypeScript compiles the TypeScript client and its tests and returns their folder. It
// installs the compiler where that is missing or another one.
func buildTypeScript(repository string) (string, error) {
	folder := filepath.Join(repository, "clients/typescript")
	typeScript.once.Do(func() {
		if !installed(folder) {
			typeScript.err = runIn(folder, "npm", "ci", "--loglevel=error")
		}
		for _, config := range []string{"tsconfig.json", "tsconfig.test.json"} {
			if typeScript.err == nil {
				typeScript.err = runIn(folder, "node", "node_modules/typescript/bin/tsc", "-p", config)
			}
		}
	})
	return folder, typeScript.err
}

// installed reports whether the packages of the lock file are there.
func installed(folder string) bool {
	lock, err := os.Stat(filepath.Join(folder, "package-lock.json"))
	packages, err2 := os.Stat(filepath.Join(folder, "node_modules/.package-lock.json"))
	return errors.Join(err, err2) == nil && !packages.ModTime().Before(lock.ModTime())
}

func runIn(folder, program string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, tail(string(out), 40))
	}
	return nil
}

// runNode runs a program with Node.js and returns its output.
func runNode(t *testing.T, folder string, args []string, environment ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", args...)
	cmd.Dir, cmd.Env = folder, append(os.Environ(), environment...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, tail(string(out), 60))
	}
	return string(out)
}

// signedWebhook returns the input of verifyWebhook, with a signature by the library of Standard
// Webhooks.
func signedWebhook(t *testing.T) string {
	t.Helper()
	const body = `{"type":"credits.spent","data":{"amount":"12.5"}}`
	secret := "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	signer, err := standardwebhooks.NewWebhook(secret)
	testkit.Must(t, err)
	now := time.Now()
	signature, err := signer.Sign("msg_1", now, []byte(body))
	testkit.Must(t, err)
	text, err := json.Marshal(object{"secrets": secret, "body": body, "headers": object{
		"webhook-id": "msg_1", "webhook-timestamp": strconv.FormatInt(now.Unix(), 10), "webhook-signature": signature,
	}})
	testkit.Must(t, err)
	return string(text)
}
