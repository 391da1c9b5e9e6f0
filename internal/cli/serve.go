package cli

import (
	"io"
	"log/slog"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/config"
)

type serveCmd struct{}

// Help is shown by 'stoa serve --help'.
func (serveCmd) Help() string {
	return "Without any option it runs a whole platform on embedded SQLite: data and keys in ./stoa-data, " +
		"listening on http://localhost:3000. Stop it with Ctrl-C: requests under way finish first; a second Ctrl-C ends it at once."
}

func (serveCmd) Run(e *Env) error {
	buffer := newBufferedLog(e.Stderr)
	defer buffer.Close()
	log := slog.New(urgent{e.Cfg.LogHandler(buffer), buffer})
	s, err := app.Start(e.Ctx, e.Cfg, log)
	if err != nil {
		return err
	}
	if e.Cfg.Development() { // in production the log shows it
		printBanner(e.Stdout, e.Cfg, s.URL)
	}
	return s.Wait(e.Ctx)
}

// printBanner prints the addresses of a server that is ready.
func printBanner(w io.Writer, cfg *config.Config, url string) {
	Printf(w, `
Stoa %s is ready.

  Start here   %s
  API docs     %s/api/docs
  Mailbox      %s/dev/mailbox
  Data         %s

Open your first store:

  curl -X POST %s/api/auth/register -H "Content-Type: application/json" \
    -d '{"email":"owner@example.com","password":"SecurePassword123!","firstName":"John","lastName":"Doe","storeName":"My First Store"}'

Or let 'stoa demo' make three with products and credits. Ctrl-C stops the server.

`, stoa.Version, url, url, url, describeData(cfg), url)
}

func describeData(cfg *config.Config) string {
	if cfg.MasterDBURL.IsZero() {
		return cfg.DataDir + " (embedded SQLite)"
	}
	return "as MASTER_DB_URL says; embedded stores in " + cfg.DataDir
}
