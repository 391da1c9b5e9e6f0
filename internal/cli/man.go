package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/stoahq/stoa"
)

type manCmd struct {
	Output string `required:"" help:"The folder; it is made if it is missing." type:"path" placeholder:"DIR"`
}

// Help is shown by 'stoa man --help'.
func (manCmd) Help() string {
	return "Writes stoa.1, with the settings and exit codes, and a page for each command, such as stoa-stores-list.1. The packages install them."
}

func (cmd manCmd) Run(e *Env) error {
	const dirMode, fileMode = 0o755, 0o644
	if err := os.MkdirAll(cmd.Output, dirMode); err != nil {
		return err
	}
	for name, text := range manPages(e.parser.Model) {
		if err := os.WriteFile(filepath.Join(cmd.Output, name), []byte(text), fileMode); err != nil {
			return err
		}
	}
	return nil
}

// manPages returns the manual pages by their file names.
func manPages(app *kong.Application) map[string]string {
	pages := map[string]string{app.Name + ".1": mainPage(app)}
	for _, node := range app.Leaves(true) {
		pages[pageName(node)+".1"] = commandPage(node)
	}
	return pages
}

func pageName(node *kong.Node) string {
	return "stoa-" + strings.ReplaceAll(commandPath(node), " ", "-")
}

// roff is a manual page in the macros of man(7).
type roff struct{ strings.Builder }

// roffEscape escapes what roff would interpret. No line of text may begin with a control
// character.
var roffEscape = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n.", "\n\\&.", "\n'", "\n\\&'")

func (r *roff) macro(name string, args ...string) {
	r.WriteString("." + name)
	for _, arg := range args {
		fmt.Fprintf(r, ` "%s"`, strings.ReplaceAll(roffEscape.Replace(arg), `"`, `\(dq`))
	}
	r.WriteString("\n")
}

func (r *roff) text(text string) {
	r.WriteString(strings.TrimPrefix(roffEscape.Replace("\n"+text), "\n") + "\n")
}

// paragraphs writes a help text. Indented lines keep their form.
func (r *roff) paragraphs(text string) {
	for i, part := range strings.Split(strings.TrimSpace(text), "\n\n") {
		switch {
		case strings.HasPrefix(part, " "), strings.Contains(part, "\n "):
			r.macro("PP")
			r.macro("nf")
			r.text(strings.Trim(part, "\n"))
			r.macro("fi")
			continue
		case i > 0:
			r.macro("PP")
		}
		r.text(part)
	}
}

func (r *roff) begin(name, help string) {
	info := stoa.Info()
	date, _, _ := strings.Cut(info.Date, "T")
	r.macro("TH", strings.ToUpper(name), "1", date, "Stoa "+info.Version, "Stoa")
	r.macro("SH", "NAME")
	r.text(name + " - " + strings.TrimSuffix(help, "."))
	r.macro("SH", "SYNOPSIS")
}

func (r *roff) flag(flag *kong.Flag) {
	r.macro("TP")
	r.macro("B", flagText(flag))
	text := flag.Help + defaultText(flag)
	if len(flag.Envs) > 0 {
		text += " Environment: " + strings.Join(flag.Envs, ", ") + "."
	}
	r.text(strings.TrimSpace(text))
}

func commandPage(node *kong.Node) string {
	var r roff
	r.begin(pageName(node), node.Help)
	r.macro("B", node.FullPath())
	r.text(strings.TrimSpace(strings.TrimPrefix(node.Summary(), node.Path())))
	if node.Detail != "" {
		r.macro("SH", "DESCRIPTION")
		r.paragraphs(node.Detail)
	}
	if len(node.Positional) > 0 {
		r.macro("SH", "ARGUMENTS")
		for _, arg := range node.Positional {
			r.macro("TP")
			r.macro("B", arg.Summary())
			r.text(arg.Help)
		}
	}
	r.macro("SH", "OPTIONS")
	r.text("The settings in stoa(1) are options of this command too.")
	for _, flag := range node.Flags {
		if !flag.Hidden {
			r.flag(flag)
		}
	}
	r.macro("SH", "SEE ALSO")
	r.text("stoa(1)")
	return r.String()
}

func mainPage(app *kong.Application) string {
	var r roff
	r.begin(app.Name, "many online stores on one platform, each with a database of its own")
	r.macro("B", app.Name)
	r.text("COMMAND [OPTIONS]")
	r.macro("SH", "DESCRIPTION")
	r.paragraphs(app.Help + "\n\n" + app.Detail)
	r.macro("SH", "COMMANDS")
	for _, node := range app.Leaves(true) {
		r.macro("TP")
		r.macro("B", pageName(node)+"(1)")
		r.text(node.Help)
	}
	r.macro("SH", "SETTINGS")
	for _, flag := range app.Flags {
		if isSetting(flag) && !flag.Hidden {
			r.flag(flag)
		}
	}
	r.macro("SH", "EXIT STATUS")
	r.paragraphs(strings.TrimPrefix(ExitCodes, "Exit codes:\n\n"))
	return r.String()
}
