package cli_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/testkit"
)

// words returns the candidates for the last of the given words.
func words(t *testing.T, line ...string) (found []string) {
	t.Helper()
	_, out, errs := run(t, append([]string{"__complete"}, line...)...)
	if errs != "" {
		t.Errorf("completion of %q: %s", line, errs)
	}
	for l := range strings.Lines(out) {
		word, _, _ := strings.Cut(l, "\t")
		found = append(found, word)
	}
	return found
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line   []string
		want   []string // all of them
		others bool     // more is allowed
	}{
		{[]string{"sto"}, []string{"stores"}, false},
		{[]string{"stores", "s"}, []string{"show", "suspend"}, false},
		{[]string{"--port", "3000", "stores", "s"}, []string{"show", "suspend"}, false},
		{[]string{"--port", "=", "3000", "stores", "s"}, []string{"show", "suspend"}, false},
		{[]string{"--port=3000", "stores", "s"}, []string{"show", "suspend"}, false},
		{[]string{"stores", "list", "--status", "su"}, []string{"suspended"}, false},
		{[]string{"stores", "list", "--status", "=", "su"}, []string{"suspended"}, false},
		{[]string{"stores", "list", "--status", "="}, []string{"active", "deleted"}, true},
		{[]string{"stores", "list", "--status=su"}, []string{"--status=suspended"}, false},
		{[]string{"stores", "list", "--"}, []string{"--json", "--status", "--data-dir"}, true},
		{[]string{"stores", "list", "--js"}, []string{"--json"}, false},
		{[]string{"stores", "show", ""}, nil, false},
		{[]string{"completion", ""}, []string{"bash", "zsh", "fish"}, false},
		{[]string{"help", "stores", "li"}, []string{"list"}, false},
		{[]string{"help", "se"}, []string{"serve", "settings"}, false},
		{[]string{""}, []string{"serve", "help"}, true},
		{[]string{"nothing", "there", "--nothing="}, nil, false},
		{nil, []string{"serve"}, true},
	} {
		got := words(t, c.line...)
		for _, w := range c.want {
			if !slices.Contains(got, w) {
				t.Errorf("%q: %v lacks %s", c.line, got, w)
			}
		}
		if !c.others && len(got) != len(c.want) {
			t.Errorf("%q: %v, want %v", c.line, got, c.want)
		}
	}
}

// TestCompletionInShells runs the scripts in the real shells, with this test as stoa. Each
// shell prints what it completes: a value alone, a value in one word with its option, a
// command with its description, and a file where there is no candidate.
func TestCompletionInShells(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	testkit.Must(t, err)
	bin := t.TempDir()
	stoa := fmt.Sprintf("#!/bin/sh\nSTOA_TEST_AS_COMMAND=1 exec '%s' -test.run='^TestAsCommand$' -- \"$@\"\n", self)
	testkit.Must(t, os.WriteFile(filepath.Join(bin, "stoa"), []byte(stoa), 0o700))
	for shell, c := range map[string]struct{ script, commands, want string }{
		"bash": {"stoa.bash", `source stoa.bash
COMP_WORDS=(stoa stores list --status = su) COMP_CWORD=5
_stoa
echo "${COMPREPLY[@]}"`, "suspended\n"},
		"fish": {"stoa.fish", `source stoa.fish
complete -C "stoa stores list --status su"
complete -C "stoa stores list --status=su"
complete -C "stoa stores sh"
complete -C "stoa stores import stoa.f"`, "suspended\n--status=suspended\nshow\tShow one store.\nstoa.fish\n"},
		// Only an editor of lines completes in zsh: a second zsh types at a terminal.
		"zsh": {"_stoa", `zmodload zsh/zpty
zpty terminal zsh -f -i
zpty -w terminal "fpath=($PWD \$fpath); autoload -Uz compinit; compinit -D -u"
zpty -w terminal 'line() { print -r -- "line:$BUFFER." }; zle -N line; bindkey "^T" line; PS1=rea; PS1+="dy>"'
zpty -r -m terminal typed '*ready>*'
complete() { # complete WORDS PATTERN types WORDS, a tab and the key that prints the line
  zpty -w -n terminal "$1"$'\t\C-t'
  zpty -r -m terminal typed "*$2*" && print -r -- "$2"
  zpty -w -n terminal $'\C-u'
}
complete 'stoa stores list --status su' 'line:stoa stores list --status suspended'
complete 'stoa stores list --status=su' 'line:stoa stores list --status=suspended'
complete 'stoa stores s' 'show     -- Show one store.'
complete 'stoa stores import _s' 'line:stoa stores import _stoa'`, `line:stoa stores list --status suspended
line:stoa stores list --status=suspended
show     -- Show one store.
line:stoa stores import _stoa
`},
	} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			program, err := exec.LookPath(shell)
			if err != nil {
				testkit.Unavailable(t, shell+" is missing")
			}
			dir := t.TempDir()
			_, script, _ := run(t, "completion", shell)
			testkit.Must(t, os.WriteFile(filepath.Join(dir, c.script), []byte(script), 0o600))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, program, "-c", c.commands)
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+dir, "TERM=dumb")
			if out, err := cmd.CombinedOutput(); err != nil || string(out) != c.want {
				t.Errorf("%v: %q", err, out)
			}
		})
	}
}

// TestAsCommand makes the test binary run as stoa.
func TestAsCommand(t *testing.T) {
	if os.Getenv("STOA_TEST_AS_COMMAND") == "" {
		t.Skip("TestCompletionInShells starts it")
	}
	at := slices.Index(os.Args, "--")
	os.Exit(cli.Run(t.Context(), os.Args[at+1:], os.Stdout, os.Stderr))
}

// TestManualPages checks that there is a page for each command, in which nothing but
// macros begins with a control character.
func TestManualPages(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "man1")
	if status, out, errs := run(t, "man", "--output", dir); status != 0 || out != "" || errs != "" {
		t.Fatalf("man: %d %q %q", status, out, errs)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) != len(leaves(t))+1 {
		t.Errorf("%d pages, %v", len(pages), err)
	}
	macros := []string{".TH", ".SH", ".B", ".PP", ".TP", ".nf", ".fi"}
	for _, path := range pages {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			macro, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !slices.Contains(macros, macro) {
				t.Errorf("%s: %q is read as a macro", filepath.Base(path), line)
			}
		}
	}
	list, err := os.ReadFile(filepath.Join(dir, "stoa-stores-list.1"))
	if err != nil || !strings.Contains(string(list), `\-\-status`) || !strings.Contains(string(list), "stoa stores list") {
		t.Errorf("stoa-stores-list.1: %v\n%s", err, list)
	}
}
