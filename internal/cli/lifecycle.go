package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/stores"
)

// OneStore holds the arguments that all commands that change one store have.
type OneStore struct {
	Store string `arg:"" help:"Its id, slug or hostname." placeholder:"STORE"`
	JSON  bool   `help:"Print the store as JSON."`
}

type storesSuspendCmd struct{ OneStore }

// Help is shown by 'stoa stores suspend --help'.
func (storesSuspendCmd) Help() string {
	return "Shoppers get 503 store_suspended; the store's data stay as they are. What you suspend its owner cannot resume: 'stoa stores resume' does. " +
		"It may run beside 'stoa serve' and be repeated."
}

func (cmd storesSuspendCmd) Run(e *Env) error {
	return cmd.change(e, "%s is suspended; shoppers are turned away until 'stoa stores resume'", func(ctx context.Context, a *app.App, s stores.Store) error {
		return a.Registry.SuspendByOperator(ctx, e.by, s.ID)
	})
}

type storesResumeCmd struct{ OneStore }

// Help is shown by 'stoa stores resume --help'.
func (storesResumeCmd) Help() string { return "Whoever suspended the store, it is open again." }

func (cmd storesResumeCmd) Run(e *Env) error {
	return cmd.change(e, "%s is open", func(ctx context.Context, a *app.App, s stores.Store) error {
		return a.Registry.ResumeByOperator(ctx, e.by, s.ID)
	})
}

// StoresDeleteCmd is "stoa stores delete".
type StoresDeleteCmd struct {
	OneStore
	Yes bool `help:"Do not ask."`
}

// Help is shown by 'stoa stores delete --help'.
func (StoresDeleteCmd) Help() string {
	return "Closes the store at once. After the grace period (STOA_DELETION_GRACE) 'stoa serve' deletes it for good: its credentials are destroyed, " +
		"its custom hostnames are free, and its slug is some time later (STOA_KEEP_SLUGS); a managed database is dropped; a merchant's own database is left as it is. Ledger and billing are kept. " +
		"Until then 'stoa stores restore' takes it back. Asks for the store's slug, unless --yes is given."
}

// Run runs the command.
func (cmd StoresDeleteCmd) Run(e *Env) error {
	return cmd.change(e, "%s is closed and being deleted", func(ctx context.Context, a *app.App, s stores.Store) error {
		if !cmd.Yes {
			if err := confirm(e, s, fmt.Sprintf("This closes %s (%s) and deletes it for good after %s.", s.Slug, s.Name, e.Cfg.DeletionGrace)); err != nil {
				return err
			}
		}
		_, err := a.Registry.DeleteByOperator(ctx, e.by, s.ID)
		return err
	})
}

type storesRestoreCmd struct{ OneStore }

// Help is shown by 'stoa stores restore --help'.
func (storesRestoreCmd) Help() string {
	return "The store is again in the state it had: active, suspended, or waiting for a database. After the grace period nothing brings it back."
}

func (cmd storesRestoreCmd) Run(e *Env) error {
	return cmd.change(e, "%s is restored", func(ctx context.Context, a *app.App, s stores.Store) error {
		return a.Registry.RestoreByOperator(ctx, e.by, s.ID)
	})
}

// change finds the store, calls change on it and prints its new state.
func (cmd OneStore) change(e *Env, done string, change func(context.Context, *app.App, stores.Store) error) error {
	ctx, cancel := context.WithTimeout(e.Ctx, 5*time.Minute) // a person may be asked for confirmation
	defer cancel()
	a, err := e.openApp(ctx)
	if err != nil {
		return err
	}
	defer a.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the change is already committed
	s, err := stores.Find(ctx, a.Master, cmd.Store)
	if err != nil {
		return plain(err)
	}
	if err := change(ctx, a, s); err != nil {
		return plain(err)
	}
	if s, err = stores.Find(ctx, a.Master, s.ID.String()); err != nil {
		return plain(err)
	}
	if cmd.JSON {
		return json.NewEncoder(e.Stdout).Encode(newStoreRecord(s))
	}
	Printf(e.Stdout, done+".\n", s.Slug)
	return printStore(e.Stdout, newStoreRecord(s))
}
