package app_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/testkit"
)

// documentedCommand makes the test binary run as stoa: see
// TestDocumentedCommandProcess.
const documentedCommand = "STOA_TEST_DOCUMENTED_COMMAND"

// maxNotRun is how many shell blocks of all documents may go untested.
const maxNotRun = 8

// TestDocumentedCommandProcess runs stoa for TestDocumentedCommands. The arguments
// after "--" are the command line. A server stops when its standard input is closed.
func TestDocumentedCommandProcess(t *testing.T) {
	if os.Getenv(documentedCommand) == "" {
		t.Skip("TestDocumentedCommands starts it")
	}
	args := flag.Args()
	if len(args) > 0 && args[0] == "serve" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(1)
		}()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // as main does
	status := cli.Run(ctx, args, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// TestDocumentedCommands runs the shell blocks of each document in order, as a
// reader would, against a fresh server on the embedded defaults. Every document
// continues README.md, so its blocks run first. Documents that change nothing
// through the API share a server. A block whose fence says "norun: reason" is not
// run.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"bash", "curl", "jq"} {
		if _, err := exec.LookPath(program); err != nil {
			testkit.Unavailable(t, fmt.Sprintf("%s is missing", program))
		}
	}
	const shared = "documents that change nothing through the API"
	readme := runnable(shellBlocks(t, "README.md"))
	sessions := map[string][]shellBlock{shared: slices.Clone(readme)}
	var notRun []string
	for _, name := range documents(t) {
		blocks := shellBlocks(t, name)
		for _, b := range blocks {
			if b.reason != "" {
				notRun = append(notRun, fmt.Sprintf("%s:%d %s", name, b.line, b.reason))
			}
		}
		switch blocks = runnable(blocks); {
		case name == "README.md" || len(blocks) == 0:
		case slices.ContainsFunc(blocks, func(b shellBlock) bool {
			return strings.Contains(b.text, "curl -X ") || strings.Contains(b.text, "curl -s -X ")
		}):
			sessions[name] = append(slices.Clone(readme), blocks...)
		default:
			sessions[shared] = append(sessions[shared], blocks...)
		}
	}
	for name, blocks := range sessions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runBlocks(t, blocks)
		})
	}
	t.Logf("%d blocks are not run:\n%s", len(notRun), strings.Join(notRun, "\n"))
	if len(notRun) > maxNotRun {
		t.Errorf("%d blocks are not run, more than %d", len(notRun), maxNotRun)
	}
}

// shellBlock is a fenced block of shell commands in a document.
type shellBlock struct {
	document string
	line     int // of the opening fence
	reason   string
	text     string
}

func runnable(blocks []shellBlock) []shellBlock {
	return slices.DeleteFunc(slices.Clone(blocks), func(b shellBlock) bool { return b.reason != "" })
}

// shellBlocks reads a document's shell blocks. It fails on a command in a block
// that is not marked as shell, and on a mark that it does not know.
func shellBlocks(t *testing.T, name string) (blocks []shellBlock) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository(t), name))
	if err != nil {
		t.Fatal(err)
	}
	var open *shellBlock
	shell := false
	for i, line := range strings.Split(string(text), "\n") {
		info, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && open == nil:
			language, mark, _ := strings.Cut(info, " ")
			reason, marked := strings.CutPrefix(mark, "norun: ")
			shell = slices.Contains([]string{"sh", "bash", "console", "curl"}, language)
			if shell && mark != "" && (!marked || strings.TrimSpace(reason) == "") {
				t.Errorf("%s:%d: %q is no mark of a shell block: write \"norun: reason\"", name, i+1, mark)
			}
			open = &shellBlock{document: name, line: i + 1, reason: reason}
		case fence:
			if shell {
				blocks = append(blocks, *open)
			}
			open = nil
		case open != nil:
			if !shell && regexp.MustCompile(`^\s*(curl|stoa|bin/stoa|go run|go test|make) `).MatchString(line) {
				t.Errorf("%s:%d: a command in a block that is not marked as shell", name, i+1)
			}
			open.text += line + "\n"
		}
	}
	if open != nil {
		t.Errorf("%s:%d: the block is not closed", name, open.line)
	}
	return blocks
}

// serveCommand matches a command that starts a server, with an optional comment after
// it.
var serveCommand = regexp.MustCompile(`(?m)^(?:go run \./cmd/stoa|bin/stoa|stoa) serve\b([^#\n]*)(?:#.*)?$`)

// runBlocks runs shell blocks in one bash process, in an empty directory.
func runBlocks(t *testing.T, blocks []shellBlock) {
	t.Helper()
	dir, bin := t.TempDir(), t.TempDir()
	installCommands(t, bin)
	public, private := freePort(t), freePort(t)
	var script strings.Builder
	script.WriteString(scriptHead)
	for _, b := range blocks {
		text := serveCommand.ReplaceAllString(b.text, "serve_in_background $1")
		text = strings.NewReplacer("localhost:3000", "localhost:"+public, "127.0.0.1:9090", "127.0.0.1:"+private, "bin/stoa", "stoa").Replace(text)
		fmt.Fprintf(&script, "at=%s:%d\n%s\n", b.document, b.line, text)
	}
	script.WriteString(scriptTail)

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script.String())
	cmd.Dir, cmd.WaitDelay = dir, 10*time.Second
	cmd.Env = []string{documentedCommand + "=1", "PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + os.TempDir(),
		"NO_PROXY=*", "PORT=" + public, "STOA_PRIVATE_LISTEN=127.0.0.1:" + private}
	stdin, err := cmd.StdinPipe() // closing it stops the server, however this test ends
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stdin.Close() }()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "serve.log"))
		t.Errorf("%v\n%s\nthe server's log:\n%s", err, tail(out.String(), 30), tail(string(log), 20))
	}
}

// scriptHead makes every failure end the script and name the command. A response with a
// status of 400 or more is a failure.
const scriptHead = `set -eEuo pipefail
exec 3<&0
trap 'echo "FAILED: $at: $BASH_COMMAND" >&2' ERR
curl() { command curl --fail-with-body --silent --show-error --max-time 60 "$@"; }
serve_in_background() {
  stoa serve "$@" <&3 >serve.log 2>&1 &
  server=$!
  for ((i = 0; i < 600; i++)); do
    if command curl --fail --silent --output /dev/null "http://localhost:$PORT/readyz"; then return; fi
    kill -0 $server
    sleep 0.1
  done
  return 1
}
`

// scriptTail stops the server as Ctrl-C or a process manager does.
const scriptTail = `at=end
kill -TERM $server
wait $server
`

// installCommands writes a stoa command and a go command that runs it into the
// directory. Both run this test binary, which contains the program.
func installCommands(t *testing.T, bin string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stoaScript := fmt.Sprintf("#!/bin/sh\nexec '%s' -test.run='%s' -- \"$@\"\n", self, onlyDocumentedCommandProcess)
	goScript := "#!/bin/sh\n[ \"$1 $2\" = 'run ./cmd/stoa' ] || { echo \"go $*: not known here\" >&2; exit 1; }\nshift 2\nexec stoa \"$@\"\n"
	for name, text := range map[string]string{"stoa": stoaScript, "go": goScript} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// repository returns the directory of go.mod, independent of the location of this
// package.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "README.md")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no folder above has a README.md")
		}
		dir = filepath.Dir(dir)
	}
}

// documents returns the paths of all documents, README.md first.
func documents(t *testing.T) []string {
	t.Helper()
	root := repository(t)
	names := []string{"README.md"}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			name, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			if name != "README.md" {
				names = append(names, filepath.ToSlash(name))
			}
		}
	}
	if len(names) < 10 {
		t.Fatalf("only %v", names)
	}
	return names
}

// TestDocumentsAreShort checks the maximum length of each document.
func TestDocumentsAreShort(t *testing.T) {
	t.Parallel()
	for _, name := range documents(t) {
		limit := 0
		switch {
		case name == "README.md":
			limit = 1000
		case name == "ARCHITECTURE.md":
			limit = 1300
		case strings.HasPrefix(name, "docs/adr/0"):
			limit = 300
		default:
			continue
		}
		text, err := os.ReadFile(filepath.Join(repository(t), name))
		if err != nil {
			t.Fatal(err)
		}
		if n := len(strings.Fields(string(text))); n > limit {
			t.Errorf("%s has %d words, more than %d", name, n, limit)
		}
	}
}

// TestDocumentsLinkToFiles checks every relative link of the documents.
func TestDocumentsLinkToFiles(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, name := range documents(t) {
		text, err := os.ReadFile(filepath.Join(repository(t), name))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(repository(t), filepath.Dir(name), target)); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
		}
	}
}

// TestEveryDecisionRecordIsListed compares docs/adr with its index and requires
// the three sections of each record.
func TestEveryDecisionRecordIsListed(t *testing.T) {
	t.Parallel()
	index, err := os.ReadFile(filepath.Join(repository(t), "docs/adr/README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range documents(t) {
		if !strings.HasPrefix(name, "docs/adr/0") {
			continue
		}
		if !strings.Contains(string(index), "("+filepath.Base(name)+")") {
			t.Errorf("docs/adr/README.md does not list %s", name)
		}
		text, err := os.ReadFile(filepath.Join(repository(t), name))
		if err != nil {
			t.Fatal(err)
		}
		for _, section := range []string{"## Context", "## Decision", "## Consequences"} {
			if !strings.Contains(string(text), "\n"+section+"\n") {
				t.Errorf("%s has no section %q", name, section)
			}
		}
	}
}

// TestDocumentsListEveryMetric compares docs/metrics.md with the names in the code.
func TestDocumentsListEveryMetric(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(repository(t), "docs/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(stoa_[a-z_]+)`").FindAllStringSubmatch(string(text), -1) {
		listed[m[1]] = true
	}
	inCode := map[string]bool{}
	definition := regexp.MustCompile(`(?:\bName:\s*|NewDesc\()"(stoa_[a-z_]+)"`)
	err = filepath.WalkDir(repository(t), func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 1 || d.Name() == "bench"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(path)
		for line := range bytes.Lines(source) {
			if !bytes.Contains(line, []byte(`"stoa_`)) {
				continue // the expression takes a hundred times as long
			}
			for _, m := range definition.FindAllSubmatch(line, -1) {
				inCode[string(m[1])] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(inCode) < 20 {
		t.Errorf("the code has only these metrics: %v", inCode)
	}
	for name := range inCode {
		if !listed[name] {
			t.Errorf("docs/metrics.md does not list %s", name)
		}
	}
	for name := range listed {
		if !inCode[name] {
			t.Errorf("docs/metrics.md lists %s, which does not exist", name)
		}
	}
}
