package cli

import (
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish." placeholder:"SHELL"`
}

// Help is shown by 'stoa completion --help'.
func (completionCmd) Help() string {
	return "Prints a script that makes the shell complete commands, options and their values. The packages install it."
}

func (cmd completionCmd) Run(e *Env) error {
	_, err := io.WriteString(e.Stdout, completionScripts[cmd.Shell])
	return err
}

// completeWord is the first argument with which the scripts ask for candidates. The words
// of the command line follow, the last of which is completed.
const completeWord = "__complete"

// The scripts show files where there is no candidate.
var completionScripts = map[string]string{
	"bash": `# bash completion for stoa
_stoa() {
  local line IFS=$'\n'
  COMPREPLY=()
  for line in $(stoa __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); do
    COMPREPLY+=("${line%%$'\t'*}")
  done
}
complete -o bashdefault -o default -F _stoa stoa
`,
	"zsh": `#compdef stoa
_stoa() {
  local word text
  local -a found
  while IFS=$'\t' read -r word text; do
    found+=("${word//:/\\:}:${text}")
  done < <(stoa __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
  if (( ${#found} )); then _describe stoa found; else _files; fi
}
if [ "${funcstack[1]}" = _stoa ]; then _stoa "$@"; else compdef _stoa stoa; fi
`,
	"fish": `# fish completion for stoa
function __stoa_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l found (stoa __complete $words[2..-1] 2>/dev/null)
  if test (count $found) -gt 0
    printf '%s\n' $found
  else
    __fish_complete_path (commandline -ct)
  end
end
complete -c stoa -f -a '(__stoa_complete)'
`,
}

// candidate is a word that may stand in the completed place.
type candidate struct{ word, help string }

// printCandidates prints the candidates as lines of word, tab and description.
func printCandidates(w io.Writer, app *kong.Application, words []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	last := strings.TrimPrefix(words[len(words)-1], "=") // bash splits at '='
	for _, c := range candidates(app, words[:len(words)-1], last) {
		if strings.HasPrefix(c.word, last) {
			Printf(w, "%s\t%s\n", c.word, c.help)
		}
	}
}

func candidates(app *kong.Application, before []string, last string) (found []candidate) {
	node, value, arguments := app.Node, (*kong.Flag)(nil), 0
	for _, word := range before {
		child := childOf(node, word)
		switch {
		case word == "=":
		case value != nil:
			value = nil
		case strings.HasPrefix(word, "-"):
			if flag := flagOf(node, word); flag != nil && !flag.IsBool() {
				value = flag
			}
		case child != nil && commandPath(child) == "help":
			node = app.Node // its arguments are the words of a command
			found = []candidate{{"settings", "What all commands share"}, {"exit-codes", "What the exit codes mean"}}
		case child != nil:
			node, found = child, nil
		default:
			arguments++
		}
	}
	name, _, inline := strings.Cut(last, "=")
	switch {
	case value != nil:
		return valuesOf(value.Value, "")
	case inline && strings.HasPrefix(name, "-"):
		if flag := flagOf(node, name); flag != nil {
			return valuesOf(flag.Value, name+"=")
		}
		return nil
	case strings.HasPrefix(last, "-"):
		return flagsOf(node)
	case arguments < len(node.Positional):
		return append(found, valuesOf(node.Positional[arguments], "")...)
	}
	for _, child := range node.Children {
		if !child.Hidden {
			found = append(found, candidate{child.Name, child.Help})
		}
	}
	return found
}

// flagOf returns the flag that is written so, or nil.
func flagOf(node *kong.Node, written string) *kong.Flag {
	for _, level := range node.AllFlags(false) {
		for _, flag := range level {
			if written == "--"+flag.Name || flag.Short != 0 && written == "-"+string(flag.Short) {
				return flag
			}
		}
	}
	return nil
}

// flagsOf returns the flags of a command, its own ones first.
func flagsOf(node *kong.Node) (found []candidate) {
	levels := node.AllFlags(true)
	for i := len(levels) - 1; i >= 0; i-- {
		for _, flag := range levels[i] {
			found = append(found, candidate{"--" + flag.Name, flag.Help})
		}
	}
	return found
}

func valuesOf(value *kong.Value, prefix string) (found []candidate) {
	if value.Enum == "" {
		return nil
	}
	for _, word := range value.EnumSlice() {
		if word != "" {
			found = append(found, candidate{prefix + word, ""})
		}
	}
	return found
}
