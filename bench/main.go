// Command bench measures the platform from outside: it builds the binary, starts it with a
// real PostgreSQL server and uses its API like a client.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

type cli struct {
	Reads   readsCmd   `cmd:"" default:"withargs" help:"Store-front reads over stores that all have their connections, beside a bare handler over one."`
	Zipf    zipfCmd    `cmd:"" help:"A thousand stores, few of them busy, over a hundred connections."`
	Uniform uniformCmd `cmd:"" help:"A thousand stores, all as busy, over fifty connections."`
	Fleet   fleetCmd   `cmd:"" help:"Zipf and uniform over the same stores, which take longest to make."`

	Peers     peersCmd     `cmd:"" help:"Reads of stores beside a bare handler behind PgBouncer; reads and writes beside PocketBase."`
	Embedded  embeddedCmd  `cmd:"" help:"Five thousand SQLite stores, two hundred of them open."`
	Victim    victimCmd    `cmd:"" help:"What the other stores notice when the database of one hangs."`
	Attacks   attacksCmd   `cmd:"" help:"What other stores notice, and how far memory grows, while owners and shoppers attack the platform."`
	Provision provisionCmd `cmd:"" help:"Stores that are given their databases, eight at a time."`
	Migrate   migrateCmd   `cmd:"" help:"One migration over a thousand SQLite stores and two hundred PostgreSQL databases, and none."`
	Backlog   backlogCmd   `cmd:"" help:"What an endpoint costs the others for which very many events wait."`
	Webhooks  webhooksCmd  `cmd:"" help:"How long an event takes from its commit to its endpoint, and what a dead endpoint costs the others."`
	Operator  operatorCmd  `cmd:"" help:"The operator's list of stores in the console, over a hundred and ten thousand stores."`
	Credits   creditsCmd   `cmd:"" help:"Spends on one store and on a thousand, beside the best single statement."`
	Ledger    ledgerCmd    `cmd:"" help:"A ledger of ten million transactions: a balance, a page of it, and its verification."`
	Calls     callsCmd     `cmd:"" help:"Calls of signed-in users: a balance beside a bare handler with one query, and spends."`
	Tracing   tracingCmd   `cmd:"" help:"What traces cost: off, one in a hundred recorded, and all."`
	Archive   archiveCmd   `cmd:"" help:"Archives of a store, written and loaded, beside the engines' own dump tools."`
	Move      moveCmd      `cmd:"" help:"Moves of a store between databases, while its own software writes and shoppers read."`
	Scale     scaleCmd     `cmd:"" help:"What stores cost the master and a server, at a thousand, ten and a hundred thousand, and what a million needs."`

	// These commands are the processes that a measurement starts from this binary.
	Bare bareCmd `cmd:"" hidden:""`
	Load loadCmd `cmd:"" hidden:""`

	ArchiveWork archiveWorkCmd `cmd:"" hidden:""`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	kctx := kong.Parse(&cli{}, kong.Name("bench"), kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Description("Measures the platform from outside. 'make bench' starts the database server it needs."))
	kctx.FatalIfErrorf(kctx.Run())
}
