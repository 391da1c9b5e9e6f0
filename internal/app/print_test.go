package app_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"

	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/masterdb"
)

// hostile is a malicious name of a tenant: it sets the terminal's title, overwrites the
// line, adds lines and reverses the reading direction.
const hostile = "x\x1b]0;owned\a\r\x1b[2K\nok    keys  forged\tcolumn\u0085\u009b31m\u202ekcab\u2066\u200b\u2028\ufeff\U000e0041\x7fx"

// obeyed lists the characters that a terminal would interpret, except line ends and
// tabs.
func obeyed(text string) (found []rune) {
	for _, r := range text {
		if r != '\n' && r != '\t' && cli.IsInvisible(r) {
			found = append(found, r)
		}
	}
	return found
}

// TestCommandsEscapeWhatTheyPrint checks that, whatever the master database contains,
// no command prints a character that a terminal interprets, or a line that a tenant
// made up. The JSON output stays equivalent.
func TestCommandsEscapeWhatTheyPrint(t *testing.T) {
	t.Parallel()
	dir := "--data-dir=" + filepath.Join(t.TempDir(), "stoa-data")
	for _, name := range []string{"migrate", "demo"} {
		if status, _, stderr := command(t, name, dir); status != 0 {
			t.Fatal(stderr)
		}
	}
	ids := spoil(t, strings.TrimPrefix(dir, "--data-dir="))
	spoilTenants(t, strings.TrimPrefix(dir, "--data-dir="))
	for _, test := range []struct {
		args  []string
		shows bool // the output contains a hostile value
	}{
		{[]string{"stores", "list"}, true},
		{[]string{"stores", "show", ids["stores"]}, true},
		{[]string{"stores", "hostnames", ids["stores"]}, false},
		{[]string{"stores", "show", "no such " + hostile}, true},
		{[]string{"users", "list"}, true},
		{[]string{"users", "promote", ids["users"]}, true},
		{[]string{"users", "demote", "nobody" + hostile}, true},
		{[]string{"prices", "list"}, true},
		{[]string{"prices", "set", "x" + hostile, "1"}, false},
		{[]string{"tenants", "status"}, false},
		{[]string{"tenants", "check"}, true},
		{[]string{"tenants", "migrate", "--dry-run"}, false},
		{[]string{"credits", "verify"}, false},
		{[]string{"credits", "grant", ids["stores"], "1", "--reason", "test" + hostile}, false},
		{[]string{"keys", "list"}, false},
		{[]string{"doctor", "--fleet"}, false},
		{[]string{"payments", "list"}, false},
		{[]string{"payments", "reconcile"}, false},
		{[]string{"migrate"}, false},
		{[]string{"serve", "--log-level=" + hostile}, true},
		{[]string{hostile}, true},
	} {
		for _, format := range []string{"", "--json"} {
			args := append(append([]string{}, test.args...), dir)
			if format != "" {
				args = append(args, format)
			}
			_, stdout, stderr := command(t, args...)
			if found := obeyed(stdout + stderr); len(found) > 0 {
				t.Errorf("%q prints %U: %q", args, found, stdout+stderr)
			}
			if strings.Contains(stdout+stderr, "\nok    keys  forged") {
				t.Errorf("%q prints a forged line: %q", args, stdout+stderr)
			}
			if test.shows && format == "" && !strings.Contains(stdout+stderr, `\u202e`) {
				t.Errorf("%q shows nothing of what was spoilt: %q", args, stdout+stderr)
			}
			for line := range strings.Lines(stdout) {
				if format != "" && !json.Valid([]byte(line)) && strings.HasPrefix(line, "{") {
					t.Errorf("%q prints no JSON: %q", args, line)
				}
			}
		}
	}
}

// spoil appends hostile to every text column of the master database that accepts it,
// and returns an id of each table.
func spoil(t *testing.T, dir string) map[string]string {
	t.Helper()
	db, err := masterdb.Open(t.Context(), "sqlite:"+filepath.Join(dir, "master.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ids, spoilt := map[string]string{}, 0
	for _, table := range []string{"stores", "users", "store_databases", "store_hostnames", "service_credit_costs"} {
		var columns []string
		if err := db.Select(t.Context(), &columns, `SELECT name FROM pragma_table_info($1) WHERE type LIKE '%TEXT%' OR type LIKE '%CHAR%'`, table); err != nil {
			t.Fatal(err)
		}
		for _, c := range columns {
			if c == "id" || strings.HasSuffix(c, "_id") || strings.HasSuffix(c, "_by") || strings.HasSuffix(c, "_at") || c == "engine" || c == "kind" || strings.Contains(c, "credential") {
				continue
			}
			err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
				_, err := tx.Exec(t.Context(), `UPDATE `+table+` SET `+c+` = coalesce(`+c+`, '') || $1`, hostile)
				return err
			})
			if err == nil { // the other columns have CHECK constraints that refuse it
				spoilt++
			}
		}
		if table == "stores" || table == "users" {
			var id string
			if err := db.Get(t.Context(), &id, `SELECT id FROM `+table+` ORDER BY id LIMIT 1`); err != nil {
				t.Fatal(err)
			}
			ids[table] = id
		}
	}
	if spoilt < 6 {
		t.Fatalf("only %d columns are spoilt", spoilt)
	}
	return ids
}

// spoilTenants gives a table of each embedded database a column called hostile.
func spoilTenants(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "stores", "*", "*.db"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d databases, %v", len(files), err)
	}
	for _, file := range files {
		db, err := sql.Open("sqlite", file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), `ALTER TABLE products ADD COLUMN "`+hostile+`" TEXT`); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPrintf(t *testing.T) {
	t.Parallel()
	type name string
	var b bytes.Buffer
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, arg := range []any{"a\tb\n\x1b", name("\u202e"), errors.New("\r"), []string{"\x07"}, masterdb.Engine("\U000e0001")} {
		cli.Printf(table, "%v\t|\n", arg)
	}
	cli.Printf(table, "%d %.1f %t %q %-3s\t|\n", 7, 1.25, true, "q", "é")
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	want := `a\tb\n\u001b         |` + "\n" + `\u202e                |` + "\n" + `\u000d                |` + "\n" + `[\u0007]              |` + "\n" +
		`\udb40\udc01          |` + "\n" + `7 1.2 true "q" é    |` + "\n"
	if got := b.String(); strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") || len(obeyed(got)) > 0 {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}

// TestSafeWriter checks that the output does not depend on the size of the writes.
func TestSafeWriter(t *testing.T) {
	t.Parallel()
	text := "plain\tä\n" + hostile + "\xff\xfe家\u200d\n"
	var whole bytes.Buffer
	if _, err := (&cli.SafeWriter{W: &whole}).Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if found := obeyed(whole.String()); len(found) > 0 || !strings.HasPrefix(whole.String(), "plain\tä\nx\\u001b]0;") || !strings.HasSuffix(whole.String(), "\\xff\\xfe家\u200d\n") {
		t.Errorf("writes %q", whole.String())
	}
	for size := 1; size < 5; size++ {
		var b bytes.Buffer
		w := &cli.SafeWriter{W: &b}
		for rest := []byte(text); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if _, err := w.Write(rest[:min(size, len(rest))]); err != nil {
				t.Fatal(err)
			}
		}
		if b.String() != whole.String() {
			t.Errorf("in pieces of %d: %q, want %q", size, b.String(), whole.String())
		}
	}
	in := map[string]string{"name": hostile}
	var b bytes.Buffer
	if err := json.NewEncoder(&cli.SafeWriter{W: &b}).Encode(in); err != nil {
		t.Fatal(err)
	}
	var out map[string]string
	if err := json.Unmarshal(b.Bytes(), &out); err != nil || out["name"] != hostile {
		t.Errorf("JSON comes back as %q, %v", out["name"], err)
	}
}

// TestOutputThatCannotBeWritten checks that a command fails when its output is closed.
func TestOutputThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	if status := cli.Run(t.Context(), []string{"version"}, brokenPipe{}, &stderr); status != 1 || !strings.Contains(stderr.String(), "broken pipe") {
		t.Errorf("status %d: %s", status, stderr.String())
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, syscall.EPIPE }

// TestEverythingIsPrintedByPrintf checks that commands print with printf, since fmt's
// own functions do not escape arguments.
func TestEverythingIsPrintedByPrintf(t *testing.T) {
	t.Parallel()
	files := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") || name == "print.go" {
			continue
		}
		file, err := parser.ParseFile(files, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !strings.HasPrefix(f.Sel.Name, "Fprint") {
				return true
			}
			if to, ok := call.Args[0].(*ast.SelectorExpr); ok && to.Sel.Name == "terminal" {
				return true // it writes numbers and fixed words only
			}
			t.Errorf("%s: prints by fmt.%s, not by printf", files.Position(n.Pos()), f.Sel.Name)
			return true
		})
	}
}
