package cli_test

import (
	"bytes"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/stoahq/stoa/internal/cli"
)

// withoutJSON holds the commands that have no --json, with the reason.
var withoutJSON = map[string]string{
	"serve":      "its log has STOA_LOG_FORMAT=json",
	"openapi":    "it prints JSON always",
	"completion": "it prints a script",
	"man":        "it prints nothing",
	"help":       "it prints text for people",
}

// destructive holds the commands that can lose something for good: they ask, unless --yes
// is given, or there is a reason why not.
var destructive = map[string]string{
	"stores delete":         "",
	"stores move":           "",
	"stores reset-password": "",
	"backups delete":        "",
	"restore":               "",
	"doctor":                "--drop has to name each database that is lost",
	"stores restore":        "it takes a deletion back and loses nothing",
}

// sounds matches what the help of a destructive command says.
var sounds = regexp.MustCompile(`(?i)\b(delete it|deletes?|drops?|new password|restore a|take a deletion)\b`)

func newParser(t *testing.T) *kong.Kong {
	t.Helper()
	parser, err := cli.NewParser(&cli.Commands{}, io.Discard, io.Discard, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	return parser
}

// leaves returns the commands by their words.
func leaves(t *testing.T) map[string]*kong.Node {
	t.Helper()
	parser, found := newParser(t), map[string]*kong.Node{}
	for _, node := range parser.Model.Leaves(false) {
		found[strings.TrimPrefix(node.Path(), parser.Model.Name+" ")] = node
	}
	for words, node := range found { // Path has the arguments too
		if name, _, cut := strings.Cut(words, " <"); cut {
			delete(found, words)
			found[name] = node
		}
	}
	if len(found) < 40 {
		t.Fatalf("only %d commands", len(found))
	}
	return found
}

func flagNamed(node *kong.Node, name string) *kong.Flag {
	for _, flag := range node.Flags {
		if flag.Name == name {
			return flag
		}
	}
	return nil
}

// TestCommandsKeepTheRules checks every command against the rules of the command line.
func TestCommandsKeepTheRules(t *testing.T) {
	t.Parallel()
	all := leaves(t)
	for name, node := range all {
		if len(cli.Examples[name]) == 0 {
			t.Errorf("%s has no example in examples.go", name)
		}
		if node.Help == "" || !strings.HasSuffix(node.Help, ".") {
			t.Errorf("%s: its help %q is no sentence", name, node.Help)
		}
		if reason := withoutJSON[name]; (flagNamed(node, "json") == nil) != (reason != "") {
			t.Errorf("%s: give it --json, or a reason in withoutJSON", name)
		}
		reason, listed := destructive[name]
		if sounds.MatchString(node.Help) && !listed {
			t.Errorf("%s sounds as if it could lose something (%q): list it in destructive", name, node.Help)
		}
		if yes := flagNamed(node, "yes"); (yes != nil) != (listed && reason == "") {
			t.Errorf("%s: --yes and the table destructive differ", name)
		}
		for _, flag := range node.Flags {
			if flag.Help == "" && !flag.Hidden {
				t.Errorf("%s --%s has no help", name, flag.Name)
			}
		}
	}
	for _, table := range []map[string]string{withoutJSON, destructive} {
		for name := range table {
			if all[name] == nil {
				t.Errorf("%q has a row and does not exist", name)
			}
		}
	}
}

// TestExamplesParse checks that every example is a command line of its command.
func TestExamplesParse(t *testing.T) {
	t.Chdir(t.TempDir()) // for the files that must exist
	for _, name := range []string{"store.stoa", "key.txt"} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all := leaves(t)
	for name, lines := range cli.Examples {
		if name != "" && all[name] == nil {
			t.Errorf("%q has examples and does not exist", name)
		}
		for _, line := range lines {
			ctx, err := newParser(t).Parse(argumentsOf(line))
			if err != nil {
				t.Errorf("%s: %v", line, err)
				continue
			}
			if command, _, _ := strings.Cut(ctx.Command(), " <"); name != "" && command != name && !strings.HasPrefix(line, "stoa backups list") {
				t.Errorf("the example %q of %q runs %q", line, name, command)
			}
		}
	}
}

// argumentsOf returns the arguments of stoa in a line of shell.
func argumentsOf(line string) (args []string) {
	_, line, _ = strings.Cut(line, "stoa ")
	line = regexp.MustCompile(`\)"?$| > .*`).ReplaceAllString(line, "")
	for _, m := range regexp.MustCompile(`"([^"]*)"|(\S+)`).FindAllStringSubmatch(line, -1) {
		args = append(args, m[1]+m[2])
	}
	return args
}

func run(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = cli.Run(t.Context(), args, &out, &errs)
	return status, out.String(), errs.String()
}

// TestHelpIsShort checks the help of every command: on standard output, with the examples
// first, without the settings, and the same by --help and by the help command.
func TestHelpIsShort(t *testing.T) {
	t.Parallel()
	const longest = 70
	names := []string{"", "stores"}
	for name := range leaves(t) {
		names = append(names, name)
	}
	for _, name := range names {
		words := strings.Fields(name)
		status, out, errs := run(t, append(words, "--help")...)
		if status != 0 || errs != "" {
			t.Errorf("stoa %s --help: status %d, stderr %q", name, status, errs)
		}
		if n := strings.Count(out, "\n"); n > longest {
			t.Errorf("stoa %s --help has %d lines", name, n)
		}
		example, flags := strings.Index(out, "Examples:"), strings.Index(out, "Flags:")
		if name != "stores" && (example < 0 || example > flags) {
			t.Errorf("stoa %s --help does not begin with examples:\n%s", name, out)
		}
		if strings.Contains(out, "--data-dir=") || !strings.Contains(out, "stoa help settings") || strings.Contains(out, "\x1b") {
			t.Errorf("stoa %s --help shows the settings, does not say where they are, or is coloured:\n%s", name, out)
		}
		if _, same, _ := run(t, append([]string{"help"}, words...)...); same != out {
			t.Errorf("stoa help %s differs from --help:\n%s", name, same)
		}
	}
}

func TestHelpTopics(t *testing.T) {
	t.Parallel()
	_, settings, _ := run(t, "help", "settings")
	for _, flag := range newParser(t).Model.Flags {
		for _, env := range flag.Envs {
			if !strings.Contains(settings, "--"+flag.Name) || !strings.Contains(settings, env) {
				t.Errorf("the settings lack --%s, %s", flag.Name, env)
			}
		}
	}
	if _, codes, _ := run(t, "help", "exit-codes"); codes != cli.ExitCodes {
		t.Errorf("exit codes: %s", codes)
	}
	for _, words := range []string{"help nothing", "help stores nothing", "help stores list nothing"} {
		if status, out, errs := run(t, strings.Fields(words)...); status != 2 || out != "" || !strings.Contains(errs, "nothing") {
			t.Errorf("stoa %s: status %d, %q, %q", words, status, out, errs)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	_, byFlag, _ := run(t, "--version")
	status, byCommand, _ := run(t, "version")
	if status != 0 || byFlag != byCommand || !strings.HasPrefix(byFlag, "stoa ") {
		t.Errorf("version: %d %q %q", status, byFlag, byCommand)
	}
	_, record, _ := run(t, "version", "--json")
	for _, member := range []string{"version", "commit", "date", "go", "platform", "masterSchema", "tenantSchema"} {
		if !strings.Contains(record, `"`+member+`":`) {
			t.Errorf("version --json lacks %s: %s", member, record)
		}
	}
	if strings.Contains(record, `Schema":0`) {
		t.Errorf("no schema version: %s", record)
	}
}
