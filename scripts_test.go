package stoa_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/testkit"
)

// severalPrograms matches a command -v with several names, which succeeds if any of them is
// a program.
var severalPrograms = regexp.MustCompile(`^[^#]*\bcommand -v +("[^"]*"|[^\s;|&<>)]+) +[^\s;|&<>)\d]`)

// TestScriptsCheckEachProgram checks that no script takes one of several programs for all.
func TestScriptsCheckEachProgram(t *testing.T) {
	t.Parallel()
	files := []string{"Makefile", ".ci/run"}
	for _, dir := range []string{"scripts", "deploy"} {
		testkit.Must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				files = append(files, path)
			}
			return err
		}))
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		testkit.Must(t, err)
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			if severalPrograms.MatchString(line) {
				t.Errorf("%s:%d: command -v is content with one of several programs: check each", file, n)
			}
		}
	}
}

// TestFetchServersNeedsEveryProgram runs scripts/fetch-servers where npm and node are there
// and tar is not. It leaves the server out and downloads nothing for it.
func TestFetchServersNeedsEveryProgram(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil || runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("the script fetches PostgreSQL for Linux on amd64 only")
	}
	programs, servers := t.TempDir(), t.TempDir()
	for _, name := range []string{"cat", "chmod", "flock", "mkdir", "mktemp", "mv", "rm", "uname"} {
		path, err := exec.LookPath(name)
		if err != nil {
			testkit.Unavailable(t, name+" is not installed")
		}
		testkit.Must(t, os.Symlink(path, filepath.Join(programs, name)))
	}
	called := filepath.Join(programs, "called")
	for _, name := range []string{"npm", "node"} {
		testkit.Must(t, os.WriteFile(filepath.Join(programs, name), []byte("#!"+bash+"\n>>'"+called+"'\nexit 1\n"), 0o700))
	}
	cmd := exec.CommandContext(t.Context(), bash, "scripts/fetch-servers")
	cmd.Env = []string{"PATH=" + programs, "STOA_SERVERS_DIR=" + servers}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "postgres-18 cannot be had here") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(called); err == nil {
		t.Error("npm was called although tar is missing")
	}
}
