package cli

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/keyring"
)

type keysCmd struct {
	Generate keysGenerateCmd `cmd:"" help:"Print a new ENCRYPTION_KEY and JWT_SECRET. Nothing is stored."`
	List     keysListCmd     `cmd:"" help:"Which keys there are and how much is encrypted with each."`
	Rotate   keysRotateCmd   `cmd:"" help:"Encrypt everything with the first ENCRYPTION_KEY."`
}

type keysGenerateCmd struct {
	ID   string `help:"Name of the keys: letters, digits, '-' and '_'. Unless told, this month." placeholder:"ID"`
	JSON bool   `help:"Print JSON."`
}

func (cmd keysGenerateCmd) Run(e *Env) error {
	id := cmd.ID
	if id == "" {
		id = "k" + time.Now().UTC().Format("200601")
	}
	keys := config.NewKeys(id)
	if _, err := keyring.Parse(keys["ENCRYPTION_KEY"]); err != nil {
		return fmt.Errorf("--id: %w", err)
	}
	if cmd.JSON {
		// The purpose of this command is to print the keys.
		return json.NewEncoder(e.Stdout).Encode(map[string]string{
			"ENCRYPTION_KEY": keys["ENCRYPTION_KEY"].Reveal(), "JWT_SECRET": keys["JWT_SECRET"].Reveal(),
		})
	}
	_, err := e.Stdout.Write(config.FormatKeys(keys))
	return err
}
