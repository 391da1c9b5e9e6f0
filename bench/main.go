// Command bench measures the platform from outside: it builds the binary,
// starts it beside a real PostgreSQL and talks to it as its users do.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

type cli struct {
	Reads readsCmd `cmd:"" default:"withargs" help:"Store-front reads over many stores, beside a bare handler over one."`

	// The processes that a measurement starts from this same binary.
	Bare bareCmd `cmd:"" hidden:""`
	Load loadCmd `cmd:"" hidden:""`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	kctx := kong.Parse(&cli{}, kong.Name("bench"), kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Description("Measures the platform from outside. 'make bench' starts the database server it needs."))
	kctx.FatalIfErrorf(kctx.Run())
}
