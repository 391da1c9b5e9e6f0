package app_test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

const clientsDocument = "docs/api/clients.md"

// TestDocumentedGoClient compiles the Go blocks of the document as one program and runs it. It
// continues the README.
func TestDocumentedGoClient(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	afterReadme(t, s)
	blocks := languageBlocks(t, clientsDocument, "go")
	if len(blocks) < 6 {
		t.Fatalf("%s has %d Go blocks", clientsDocument, len(blocks))
	}
	program := "package main\n\n" + blocks[0] + `
import "context"

func main() {
	if err := run(context.Background()); err != nil {
		panic(err)
	}
}

func run(ctx context.Context) error {
` + strings.Join(blocks[1:], "") + "return nil\n}\n"
	dir, root := t.TempDir(), repository(t)
	source, overlay := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay.json")
	testkit.Must(t, os.WriteFile(source, []byte(strings.ReplaceAll(program, "http://localhost:3000", s.URL)), 0o600))
	text, err := json.Marshal(object{"Replace": object{filepath.Join(root, "client/documented/main.go"): source}}) // a folder of the module that does not exist
	testkit.Must(t, err)
	testkit.Must(t, os.WriteFile(overlay, text, 0o600))
	cmd := exec.CommandContext(t.Context(), "go", "run", "-overlay", overlay, "./client/documented")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "STOA_WEBHOOK_SECRET=whsec_MDEyMzQ1Njc4OWFiY2RlZg==")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	checkDocumented(t, string(out))
}

// TestDocumentedTypeScriptClient does the same with the TypeScript blocks.
func TestDocumentedTypeScriptClient(t *testing.T) {
	t.Parallel()
	needNode(t)
	s := startServer(t, testConfig(t, masterdb.SQLite))
	afterReadme(t, s)
	folder, err := buildTypeScript(repository(t))
	testkit.Must(t, err)
	blocks := languageBlocks(t, clientsDocument, "ts")
	if len(blocks) < 5 {
		t.Fatalf("%s has %d TypeScript blocks", clientsDocument, len(blocks))
	}
	dir := t.TempDir()
	program := strings.ReplaceAll(strings.Join(blocks, "\n"), "http://localhost:3000", s.URL)
	config, err := json.Marshal(object{
		"extends":         filepath.Join(folder, "tsconfig.json"),
		"compilerOptions": object{"rootDir": dir, "outDir": dir, "declaration": false, "types": []string{"node"}, "typeRoots": []string{filepath.Join(folder, "node_modules/@types")}},
		"files":           []string{filepath.Join(dir, "program.ts")}, "include": []string{},
	})
	testkit.Must(t, err)
	for name, text := range map[string]string{"program.ts": program, "tsconfig.json": string(config), "package.json": `{"type":"module"}`} {
		testkit.Must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	testkit.Must(t, os.MkdirAll(filepath.Join(dir, "node_modules/@stoahq"), 0o700))
	testkit.Must(t, os.Symlink(folder, filepath.Join(dir, "node_modules/@stoahq/stoa")))
	testkit.Must(t, runIn(dir, "node", filepath.Join(folder, "node_modules/typescript/bin/tsc"), "-p", dir))
	checkDocumented(t, runNode(t, dir, []string{"program.js"}, "STOA_WEBHOOK_SECRET=whsec_MDEyMzQ1Njc4OWFiY2RlZg=="))
}

// afterReadme registers the account of the README, with a confirmed address.
func afterReadme(t *testing.T, s *server) {
	t.Helper()
	registered := client{t: t, url: s.URL}.call("POST", "/api/auth/register",
		object{"email": "owner@example.com", "password": "SecurePassword123!", "firstName": "John", "lastName": "Doe", "storeName": "My First Store"}).want(http.StatusCreated)
	client{t: t, url: s.URL, s: s, token: registered.text("accessToken")}.proven()
}

// checkDocumented checks what the examples print.
func checkDocumented(t *testing.T, out string) {
	t.Helper()
	for _, want := range []string{"provisioning: succeeded", "description: Oil and more", "store: Second Store\nstore: My First Store", "pay at http", "buy more credits", "endpoint: https://shop.example.com/webhooks/stoa"} {
		if !strings.Contains(out, want) {
			t.Errorf("the examples do not print %q:\n%s", want, out)
		}
	}
}

// languageBlocks returns the blocks of a document that are in a language.
func languageBlocks(t *testing.T, name, language string) (blocks []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository(t), name))
	testkit.Must(t, err)
	for _, part := range strings.Split(string(text), "\n```"+language+"\n")[1:] {
		block, _, closed := strings.Cut(part, "\n```\n")
		if !closed {
			t.Fatalf("%s has a block that is not closed", name)
		}
		blocks = append(blocks, block+"\n")
	}
	return blocks
}
