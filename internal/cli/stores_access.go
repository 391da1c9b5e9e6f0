package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// accessTimeout includes the time in which the sessions with an old password end.
const accessTimeout = time.Minute

type storesDSNCmd struct {
	Store  string `arg:"" help:"Its id, slug or hostname." placeholder:"STORE"`
	Access string `help:"The store's own role, or the one that may only read: ${enum}." enum:"full,read" default:"full"`
	JSON   bool   `help:"Print the fields as JSON."`
}

// Help is shown by 'stoa stores dsn --help'.
func (storesDSNCmd) Help() string {
	return "Prints nothing but the URL, with its password. " +
		"The role that may only read is made when it is first asked for. That you read it is in the store's audit log. " +
		"An embedded database has no connection string, and one of the owner's own is its provider's."
}

// databaseAccess is the output as JSON. Its field names are those of the API.
type databaseAccess struct {
	Access           credential.Access     `json:"access"`
	Engine           credential.EngineName `json:"engine"`
	ConnectionString string                `json:"connectionString"`
	Host             string                `json:"host"`
	Port             int                   `json:"port"`
	User             string                `json:"user"`
	Password         string                `json:"password"`
	Database         string                `json:"database"`
	TLS              databaseTLS           `json:"tls"`
}

type databaseTLS struct {
	Mode          credential.TLSMode `json:"mode"`
	CACertificate *string            `json:"caCertificate"`
}

func (cmd storesDSNCmd) Run(e *Env) error {
	return reach(e, cmd.Store, func(ctx context.Context, a *app.App, s stores.Store) error {
		access := credential.Access(cmd.Access)
		c, err := a.Provisioning.CredentialsByOperator(ctx, e.by, s.ID, access)
		if err != nil {
			return err
		}
		if !cmd.JSON {
			Printf(e.Stdout, "%s\n", c.ConnectionString().Reveal())
			return nil
		}
		out := databaseAccess{
			Access: access, Engine: c.Engine, ConnectionString: c.ConnectionString().Reveal(),
			Host: c.Host, Port: c.Port, User: c.User, Password: c.Password.Reveal(), Database: c.Database, TLS: databaseTLS{Mode: c.TLS},
		}
		if c.CACertificate != "" {
			out.TLS.CACertificate = &c.CACertificate
		}
		return json.NewEncoder(e.Stdout).Encode(out) //nolint:gosec // to show the password is what the command is for
	})
}

type storesResetPasswordCmd struct {
	Store  string `arg:"" help:"Its id, slug or hostname." placeholder:"STORE"`
	Access string `help:"The store's own role, or the one that may only read: ${enum}." enum:"full,read" default:"full"`
	Yes    bool   `help:"Do not ask."`
	JSON   bool   `help:"Print JSON."`
}

// Help is shown by 'stoa stores reset-password --help'.
func (storesResetPasswordCmd) Help() string {
	return "Shoppers notice nothing. The store's own software is cut off within seconds, until it has the new password: 'stoa stores dsn'. " +
		"Asks for the store's slug, unless --yes is given. It may run beside 'stoa serve' and be repeated."
}

func (cmd storesResetPasswordCmd) Run(e *Env) error {
	return reach(e, cmd.Store, func(ctx context.Context, a *app.App, s stores.Store) error {
		if !cmd.Yes {
			if err := confirm(e, s, fmt.Sprintf("This cuts the own software of %s (%s) off its database, until it has the new password.", s.Slug, s.Name)); err != nil {
				return err
			}
		}
		resetting, cancel := context.WithTimeout(e.Ctx, accessTimeout) // ctx may be nearly over after the question
		defer cancel()
		if err := a.Provisioning.ResetPasswordByOperator(resetting, e.by, s.ID, credential.Access(cmd.Access)); err != nil {
			return err
		}
		if cmd.JSON {
			return json.NewEncoder(e.Stdout).Encode(map[string]any{"storeId": s.ID, "slug": s.Slug, "access": cmd.Access})
		}
		Printf(e.Stdout, "The database of %s has a new password: stoa stores dsn %s --access %s\n", s.Slug, s.Slug, cmd.Access)
		return nil
	})
}

// reach does what useStore does, with time for a person who is asked for confirmation.
func reach(e *Env, store string, use func(context.Context, *app.App, stores.Store) error) error {
	ctx, cancel := context.WithTimeout(e.Ctx, 5*time.Minute)
	defer cancel()
	return useStore(ctx, e, store, use)
}

// useStore finds the store and calls use.
func useStore(ctx context.Context, e *Env, store string, use func(context.Context, *app.App, stores.Store) error) error {
	a, err := e.openApp(ctx)
	if err != nil {
		return err
	}
	defer a.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the change is already committed
	s, err := stores.Find(ctx, a.Master, store)
	if err == nil {
		err = use(ctx, a, s)
	}
	if err != nil {
		return plain(err)
	}
	return nil
}

// confirm says what is about to happen, and asks for the store's slug.
func confirm(e *Env, s stores.Store, what string) error {
	Printf(e.Stderr, "%s Type its slug to go on: ", what)
	answer, _ := bufio.NewReader(e.Stdin).ReadString('\n')
	if strings.TrimSpace(answer) != s.Slug {
		return errors.New("that is not the store's slug: nothing was changed (--yes does not ask)")
	}
	return nil
}
