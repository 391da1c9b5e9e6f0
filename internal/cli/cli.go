// Package cli holds the commands: one file for each, their output as tables, JSON and
// progress.
package cli

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/config"
)

// Commands are the commands of stoa, with their flags.
type Commands struct {
	config.Config
	VersionFlag kong.VersionFlag `name:"version" help:"Print the version."`

	Serve    serveCmd    `cmd:"" help:"Run the platform: API, pages and background jobs."`
	Migrate  migrateCmd  `cmd:"" help:"Migrate the master database to this version's schema."`
	Keys     keysCmd     `cmd:"" help:"Make, list and rotate encryption and signing keys."`
	Backup   backupCmd   `cmd:"" help:"Archive a store, or back up the master database."`
	Backups  backupsCmd  `cmd:"" help:"List, check, download, upload and delete the archives of stores."`
	Restore  restoreCmd  `cmd:"" help:"Restore a store from an archive, or the master database from a backup."`
	Doctor   doctorCmd   `cmd:"" help:"Check this installation and say how to correct what is wrong."`
	Stores   storesCmd   `cmd:"" help:"Look at the stores of this platform, close, delete and restore them."`
	Credits  creditsCmd  `cmd:"" help:"Give stores credits, and check the ledger."`
	Webhooks webhooksCmd `cmd:"" help:"Forward events to a program that you develop."`
	Payments paymentsCmd `cmd:"" help:"List purchases, and compare them with the payment provider."`
	Tenants  tenantsCmd  `cmd:"" help:"Keep the stores' databases on one schema."`
	Prices   pricesCmd   `cmd:"" help:"Look at what services cost in credits, and set it."`
	Users    usersCmd    `cmd:"" help:"Look at the users and choose who operates the platform."`
	Demo     demoCmd     `cmd:"" help:"Make an owner, three stores, products and credits to look at."`
	OpenAPI  openapiCmd  `cmd:"" name:"openapi" help:"Print the OpenAPI document of the API."`
	Version  versionCmd  `cmd:"" help:"Print the version."`

	Health     healthCmd     `cmd:"" help:"Ask the server on this machine whether it can serve."`
	Completion completionCmd `cmd:"" help:"Print the script that completes commands in a shell."`
	Man        manCmd        `cmd:"" help:"Write the manual pages."`
	Help       helpCmd       `cmd:"" help:"Show the help of a command, the settings, or the exit codes."`
}

// Env is the environment of a command.
type Env struct {
	Ctx    context.Context
	by     authz.Principal // identifies this run of the command in the audit log
	Cfg    *config.Config
	Stdin  io.Reader // answers to confirmation questions
	Stdout io.Writer
	Stderr io.Writer
	// terminal shows a progress line that is redrawn; nil unless stderr is a terminal.
	terminal *os.File
	parser   *kong.Kong
}

// Run runs a command. It returns the exit status: 0 for success, 1 for a failure, 2 for a
// usage error.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var c Commands
	terminal := terminalOf(stderr)
	out := &SafeWriter{W: stdout}
	stdout, stderr = out, &SafeWriter{W: stderr}
	status := -1
	parser, err := NewParser(&c, stdout, stderr, func(code int) { status = code })
	if err != nil {
		printError(stderr, err)
		return 2
	}
	if len(args) > 0 && args[0] == completeWord { // before any setting is read: a fault there must not end completion
		printCandidates(stdout, parser.Model, args[1:])
		return 0
	}
	kctx, err := parser.Parse(args)
	if status >= 0 { // --help, --version
		return status
	}
	if err != nil {
		return usageError(stderr, err)
	}
	e := &Env{Ctx: ctx, by: authz.CommandLine(commandName(kctx.Command())), Cfg: &c.Config, Stdin: os.Stdin, Stdout: stdout, Stderr: stderr, terminal: terminal, parser: parser}
	err = cmp.Or(kctx.Run(e), out.failure())
	switch {
	case errors.Is(err, errUsage):
		return usageError(stderr, err)
	case err != nil:
		printError(stderr, err)
		return 1
	}
	return 0
}

func usageError(stderr io.Writer, err error) int {
	printError(stderr, err)
	Printf(stderr, "Run 'stoa --help' for the commands, and 'stoa COMMAND --help' for their options.\n")
	return 2
}

// NewParser returns the parser of the command line into c. It calls exit once it has
// printed help or the version.
func NewParser(c *Commands, stdout, stderr io.Writer, exit func(int)) (*kong.Kong, error) {
	parser, err := kong.New(c,
		kong.Name("stoa"),
		kong.Description("Many online stores on one platform, each with a database of its own."),
		kong.Help(printHelp),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.Writers(stdout, stderr),
		kong.Exit(exit),
		kong.Vars{"version": "stoa " + stoa.Build()},
		kong.Configuration(config.LoadYAML, "stoa.yaml"),
	)
	if err == nil {
		describe(parser.Model)
	}
	return parser, err
}

// commandName returns a command without its arguments, such as "stores suspend".
func commandName(command string) string {
	name, _, _ := strings.Cut(command, " <")
	return name
}
