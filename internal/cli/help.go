package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// configGroup is the group of the flags that all commands share: the settings.
const configGroup = "config"

type helpCmd struct {
	Words []string `arg:"" optional:"" name:"topic" help:"A command, such as stores list, or a topic: settings or exit-codes." placeholder:"COMMAND|TOPIC"`
}

// errUsage marks the errors of a command that was called wrongly.
var errUsage = errors.New("called wrongly")

func (cmd helpCmd) Run(e *Env) error {
	switch topic := strings.Join(cmd.Words, " "); topic {
	case "settings":
		printSettings(e.Stdout, e.parser.Model)
		return nil
	case "exit-codes":
		_, err := io.WriteString(e.Stdout, ExitCodes)
		return err
	}
	ctx, err := kong.Trace(e.parser, cmd.Words)
	if err != nil {
		return err
	}
	if node := nodeOf(e.parser.Model.Node, cmd.Words); node == nil {
		return fmt.Errorf("%w: there is no command or topic %q; 'stoa help' lists them", errUsage, strings.Join(cmd.Words, " "))
	}
	return ctx.PrintUsage(false)
}

// nodeOf returns the command that has exactly these words, or nil.
func nodeOf(node *kong.Node, words []string) *kong.Node {
	for _, word := range words {
		if node = childOf(node, word); node == nil {
			return nil
		}
	}
	return node
}

func childOf(node *kong.Node, name string) *kong.Node {
	for _, child := range node.Children {
		if child.Type == kong.CommandNode && child.Name == name {
			return child
		}
	}
	return nil
}

// ExitCodes is the text of 'stoa help exit-codes'.
const ExitCodes = `Exit codes:

  0  It is done. 'stoa serve' was asked to stop and did.
  1  It failed, was interrupted, or found something wrong: 'stoa doctor', 'stoa health',
     'stoa credits verify', 'stoa backups verify' and 'stoa tenants check' end so when
     what they looked at needs attention. The reason is on standard error.
  2  It was called wrongly: there is no such command or option, or a value is not
     one that it takes. Nothing was done.

Results go to standard output, as tables or with --json as JSON; questions, progress
and errors go to standard error. Nothing is coloured.
`

// describe puts the examples in front of the commands' detailed help.
func describe(app *kong.Application) {
	app.Detail = exampleText("")
	for _, node := range app.Leaves(false) {
		node.Detail = strings.TrimSpace(exampleText(commandPath(node)) + node.Detail)
	}
}

// commandPath returns the words of a command without the program's name and without its
// arguments, such as "stores list".
func commandPath(node *kong.Node) string {
	var words []string
	for ; node.Parent != nil; node = node.Parent {
		words = append([]string{node.Name}, words...)
	}
	return strings.Join(words, " ")
}

func exampleText(path string) string {
	if len(Examples[path]) == 0 {
		return ""
	}
	return "Examples:\n\n    " + strings.Join(Examples[path], "\n    ") + "\n\n"
}

// printHelp prints the help of a command without the settings, which are the same for
// every command and would hide its own options.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	selected := ctx.Selected()
	for _, flag := range ctx.Model.Flags {
		if isSetting(flag) || flag.Name == "version" && selected != nil {
			shown := flag.Hidden
			flag.Hidden = true
			defer func() { flag.Hidden = shown }()
		}
	}
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	_, err := io.WriteString(ctx.Stdout, "\nSettings that all commands share, such as --data-dir and --master-db-url: stoa help settings\n"+
		"What the exit codes mean: stoa help exit-codes\n")
	return err
}

func isSetting(flag *kong.Flag) bool { return flag.Group != nil && flag.Group.Key == configGroup }

// printSettings lists the settings with their environment variables and defaults.
func printSettings(w io.Writer, app *kong.Application) {
	Printf(w, "Settings are the same for every command. Each is a flag, an environment variable, or a\n"+
		"line of stoa.yaml in the working directory (named like the flag); a flag comes first.\nFor development 'stoa serve' needs none of them.\n")
	for _, flag := range app.Flags {
		if !isSetting(flag) || flag.Hidden {
			continue
		}
		Printf(w, "\n  %s", flagText(flag))
		if len(flag.Envs) > 0 {
			Printf(w, "  %s", strings.Join(flag.Envs, ", "))
		}
		Printf(w, "\n")
		const width = 80
		for _, line := range wrap(flag.Help+defaultText(flag), width) {
			Printf(w, "      %s\n", line)
		}
	}
}

// flagText returns a flag as it is written, such as "--port=3000".
func flagText(flag *kong.Flag) string {
	if flag.IsBool() {
		return "--" + flag.Name
	}
	return "--" + flag.Name + "=" + flag.FormatPlaceHolder()
}

func defaultText(flag *kong.Flag) string {
	if !flag.HasDefault || flag.Default == "" {
		return ""
	}
	return " Default: " + flag.Default + "."
}

// wrap breaks a text into lines of at most width characters.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return append(lines, line)
}
