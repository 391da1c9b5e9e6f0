package app_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/stoahq/stoa/internal/cli"
)

// TestDocumentsNameRealCommands checks every `stoa …` that a document names in a
// sentence or table: the command exists and has the options.
func TestDocumentsNameRealCommands(t *testing.T) {
	t.Parallel()
	var c cli.Commands
	parser, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	span := regexp.MustCompile("`(stoa [a-z][^`]*)`")
	option := regexp.MustCompile(`--[a-z][a-z-]*`)
	found := 0
	for _, name := range documents(t) {
		text, err := os.ReadFile(filepath.Join(repository(t), name))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range span.FindAllStringSubmatch(string(text), -1) {
			if m[1] == "stoa presence" || m[1] == "stoa listen" {
				continue // sessions at the master database, not commands
			}
			found++
			node := commandOf(parser.Model.Node, strings.Fields(m[1])[1:])
			if node == nil {
				t.Errorf("%s: there is no command %q", name, m[1])
				continue
			}
			for _, o := range option.FindAllString(m[1], -1) {
				if !hasFlag(node, strings.TrimPrefix(o, "--")) {
					t.Errorf("%s: %q has no option %s", name, m[1], o)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d commands found: does the test still read the documents?", found)
	}
}

// commandOf returns the command that words begin with, or nil. Of alternatives, as in
// "list|show", all must exist; the last one is returned.
func commandOf(node *kong.Node, words []string) *kong.Node {
	for _, word := range words {
		if len(node.Children) == 0 || strings.HasPrefix(word, "-") {
			break
		}
		parent := node
		for alternative := range strings.SplitSeq(word, "|") {
			i := slices.IndexFunc(parent.Children, func(n *kong.Node) bool { return n.Type == kong.CommandNode && n.Name == alternative })
			if i < 0 {
				return nil
			}
			node = parent.Children[i]
		}
	}
	return node
}

func hasFlag(node *kong.Node, name string) bool {
	for _, group := range node.AllFlags(false) {
		for _, flag := range group {
			if flag.Name == name {
				return true
			}
		}
	}
	return false
}
