// Package cli holds the commands: one file for each, their output as tables, JSON and
// progress.
package cli

import (
	"cmp"
	"context"
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
}

// Run runs a command. It returns the exit status: 0 for success, 1 for a failure, 2 for a
// usage error.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var c Commands
	terminal := terminalOf(stderr)
	out := &SafeWriter{W: stdout}
	stdout, stderr = out, &SafeWriter{W: stderr}
	status := -1
	parser, err := kong.New(&c,
		kong.Name("stoa"),
		kong.Description("Many online stores on one platform, each with a database of its own.\n\n"+
			"Every option can also be given as an environment variable or in stoa.yaml. 'stoa serve' needs none of them."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { status = code }),
		kong.Vars{"version": stoa.Build()},
		kong.Configuration(config.LoadYAML, "stoa.yaml"),
	)
	if err != nil {
		printError(stderr, err)
		return 2
	}
	kctx, err := parser.Parse(args)
	if status >= 0 { // --help
		return status
	}
	if err != nil {
		printError(stderr, err)
		Printf(stderr, "Run 'stoa --help' for the commands and options.\n")
		return 2
	}
	e := &Env{Ctx: ctx, by: authz.CommandLine(commandName(kctx.Command())), Cfg: &c.Config, Stdin: os.Stdin, Stdout: stdout, Stderr: stderr, terminal: terminal}
	if err := kctx.Run(e); err != nil || out.failure() != nil {
		printError(stderr, cmp.Or(err, out.failure()))
		return 1
	}
	return 0
}

// commandName returns a command without its arguments, such as "stores suspend".
func commandName(command string) string {
	name, _, _ := strings.Cut(command, " <")
	return name
}

type versionCmd struct{}

func (versionCmd) Run(e *Env) error {
	Printf(e.Stdout, "stoa %s\n", stoa.Build())
	return nil
}
