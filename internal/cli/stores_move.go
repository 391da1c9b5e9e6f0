package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/moves"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

type storesMoveCmd struct {
	Store string `arg:"" help:"Its id, slug or hostname." placeholder:"STORE"`
	To    string `required:"" help:"managed:postgresql, managed:mysql, managed:mariadb, managed:sqlite, or the connection string of an empty database; - reads it from standard input." placeholder:"TARGET"`
	Wait  bool   `help:"Show the progress until the store uses the new database."`
	JSON  bool   `help:"Print the move as JSON."`
}

// Help is shown by 'stoa stores move --help'.
func (storesMoveCmd) Help() string {
	return "The store stays in use. 'stoa serve' does the work; this command may end meanwhile. " +
		"Writers wait for a moment while the two databases are compared. The old one is kept for STOA_MOVE_KEEP, in which the owner can roll the move back over the API."
}

// maxTarget limits a connection string that is read from standard input.
const maxTarget = 64 << 10

// movePoll is the time between two looks at the progress.
const movePoll = 500 * time.Millisecond

func (cmd storesMoveCmd) Run(e *Env) error {
	return reach(e, cmd.Store, func(ctx context.Context, a *app.App, s stores.Store) error {
		to, err := cmd.target(e)
		if err != nil {
			return err
		}
		m, err := a.Moves.StartByOperator(ctx, e.by, s.ID, to)
		if err != nil {
			return err
		}
		if cmd.Wait {
			if m, err = cmd.follow(e, a, m); err != nil {
				return err
			}
		}
		if cmd.JSON {
			return json.NewEncoder(e.Stdout).Encode(movePrint{m.ID, m.State, m.Step, m.RowsCopied, m.Changes, m.FrozenMs})
		}
		Printf(e.Stdout, "move %s: %s\n", m.ID, m.State)
		return nil
	})
}

// movePrint is the output as JSON. Its field names are those of the API.
type movePrint struct {
	ID         stoa.MoveID `json:"id"`
	State      moves.State `json:"state"`
	Step       string      `json:"step,omitempty"`
	RowsCopied int64       `json:"rowsCopied"`
	Changes    int64       `json:"changes"`
	FrozenMs   *int64      `json:"frozenMs"`
}

// target reads where the store is to go.
func (cmd storesMoveCmd) target(e *Env) (moves.Target, error) {
	if engine, ok := strings.CutPrefix(cmd.To, "managed:"); ok {
		if engine == "mariadb" {
			engine = string(credential.MySQL)
		}
		return moves.Target{Managed: credential.EngineName(engine)}, nil
	}
	raw := cmd.To
	if raw == "-" {
		line, err := bufio.NewReader(io.LimitReader(e.Stdin, maxTarget)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return moves.Target{}, err
		}
		raw = strings.TrimSpace(line)
	}
	scheme, _, _ := strings.Cut(raw, ":")
	engine := credential.EngineOfScheme(scheme)
	if engine == "" {
		return moves.Target{}, errors.New("--to is neither managed:ENGINE nor a connection string such as postgres://user:password@host/database or mysql://…")
	}
	rules, err := e.Cfg.SupabaseRules()
	if err != nil {
		return moves.Target{}, err
	}
	pasted, err := credential.ParsePasted(engine, keyring.NewSecret(raw), "", rules)
	c := pasted.Credentials
	return moves.Target{Credentials: c}, err
}

// follow prints the progress to standard error until the store uses the new database or the
// move has ended.
func (cmd storesMoveCmd) follow(e *Env, a *app.App, m moves.Move) (moves.Move, error) {
	tick := time.NewTicker(movePoll)
	defer tick.Stop()
	step := ""
	for {
		now, err := a.Moves.GetByOperator(e.Ctx, m.StoreID, m.ID)
		if err != nil {
			return m, err
		}
		if m = now; m.Step != step {
			step = m.Step
			Printf(e.Stderr, "%s: %s, %d rows copied, %d changes\n", m.State, step, m.RowsCopied, m.Changes)
		}
		switch {
		case m.State == moves.Kept, m.State == moves.Succeeded:
			return m, nil
		case m.Done() && m.ErrorMessage != nil:
			return m, errors.New(*m.ErrorMessage)
		case m.Done():
			return m, errors.New("the move was aborted")
		}
		select {
		case <-tick.C:
		case <-e.Ctx.Done():
			return m, e.Ctx.Err()
		}
	}
}
