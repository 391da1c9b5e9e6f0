package cli

import (
	"encoding/json"
	"fmt"
	"time"

	"filippo.io/age"

	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/keyring"
)

type keysCmd struct {
	Generate keysGenerateCmd `cmd:"" help:"Print a new ENCRYPTION_KEY and JWT_SECRET. Nothing is stored."`
	List     keysListCmd     `cmd:"" help:"Which keys there are and how much is encrypted with each."`
	Rotate   keysRotateCmd   `cmd:"" help:"Encrypt everything with the first ENCRYPTION_KEY."`
}

type keysGenerateCmd struct {
	ID       string `help:"Name of the keys: letters, digits, '-' and '_'. Unless told, this month." placeholder:"ID"`
	Identity bool   `help:"Print a pair for backups instead: an identity to keep elsewhere, and its public key for STOA_BACKUP_RECIPIENTS."`
	JSON     bool   `help:"Print JSON."`
}

func (cmd keysGenerateCmd) Run(e *Env) error {
	if cmd.Identity {
		return cmd.identity(e)
	}
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

// identity prints a new pair in the form of age-keygen.
func (cmd keysGenerateCmd) identity(e *Env) error {
	pair, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	if cmd.JSON {
		return json.NewEncoder(e.Stdout).Encode(map[string]string{"identity": pair.String(), "STOA_BACKUP_RECIPIENTS": pair.Recipient().String()})
	}
	Printf(e.Stdout, "# Keep this file where neither this server's disk nor its backups are.\n# public key: %s\n%s\n", pair.Recipient(), pair)
	Printf(e.Stderr, "STOA_BACKUP_RECIPIENTS=%s\n", pair.Recipient())
	return nil
}
