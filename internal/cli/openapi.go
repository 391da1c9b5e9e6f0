package cli

import (
	"log/slog"

	"github.com/stoahq/stoa/internal/httpapi"
)

type openapiCmd struct{}

// Help is shown by 'stoa openapi --help'.
func (openapiCmd) Help() string {
	return "The document that a server with these settings has at /api/openapi.json, for generators of clients and linters. No server need run."
}

func (openapiCmd) Run(e *Env) error {
	cfg := e.Cfg.API(e.Cfg.PublicURL(e.Cfg.Port), slog.New(slog.DiscardHandler), nil, nil, nil)
	document, err := httpapi.OpenAPI(cfg)
	if err != nil {
		return err
	}
	Printf(e.Stdout, "%s\n", string(document))
	return nil
}
