// Command stoa is the platform: the server and every tool to run it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/stoahq/stoa/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(cli.Run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
