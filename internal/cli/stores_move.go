package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	Store    string `arg:"" help:"Its id, slug or hostname." placeholder:"STORE"`
	To       string `xor:"what" required:"" help:"Begin a move to managed:postgresql, managed:mysql, managed:mariadb or managed:sqlite, or to an empty database by its connection string; - reads it from standard input." placeholder:"TARGET"`
	Status   bool   `xor:"what" required:"" help:"Show the store's last move."`
	Abort    bool   `xor:"what" required:"" help:"End the move before the store uses the new database."`
	Rollback bool   `xor:"what" required:"" help:"Move the store back to the database that it had. What was written since is kept."`
	Finish   bool   `xor:"what" required:"" help:"Give up the old database now: the move can then not be rolled back."`
	Yes      bool   `help:"With --finish: do not ask."`
	Wait     bool   `help:"Show the progress until the move is complete or has ended."`
	JSON     bool   `help:"Print the move as JSON."`
}

// Help is shown by 'stoa stores move --help'.
func (storesMoveCmd) Help() string {
	return "The store stays in use. 'stoa serve' does the work; this command may end meanwhile. Writers wait for a moment while the two databases are compared. " +
		"The old one follows the new one for STOA_MOVE_KEEP, in which the move can be rolled back."
}

// maxTarget limits a connection string that is read from standard input.
const maxTarget = 64 << 10

// movePoll is the time between two looks at the progress.
const movePoll = 500 * time.Millisecond

func (cmd storesMoveCmd) Run(e *Env) error {
	return reach(e, cmd.Store, func(ctx context.Context, a *app.App, s stores.Store) error {
		if cmd.Finish && !cmd.Yes {
			if err := confirm(e, s, fmt.Sprintf("This gives up the old database of %s (%s): the move can then not be rolled back.", s.Slug, s.Name)); err != nil {
				return err
			}
		}
		m, err := cmd.do(ctx, e, a, s.ID)
		if err != nil {
			return err
		}
		if cmd.Wait {
			if m, err = cmd.follow(ctx, e, a, m); err != nil {
				return err
			}
		}
		if cmd.JSON {
			return json.NewEncoder(e.Stdout).Encode(newMovePrint(m))
		}
		Printf(e.Stdout, "move %s from %s to %s: %s\n", m.ID, m.Source, m.Target, moveState(m))
		return nil
	})
}

func (cmd storesMoveCmd) do(ctx context.Context, e *Env, a *app.App, store stoa.StoreID) (moves.Move, error) {
	if cmd.To != "" {
		to, err := cmd.target(e)
		if err != nil {
			return moves.Move{}, err
		}
		return a.Moves.StartByOperator(ctx, e.by, store, to)
	}
	m, err := a.Moves.LastByOperator(ctx, store)
	switch {
	case err != nil:
		return m, err
	case cmd.Abort:
		return a.Moves.AbortByOperator(ctx, e.by, store, m.ID)
	case cmd.Rollback:
		return a.Moves.RollbackByOperator(ctx, e.by, store, m.ID)
	case cmd.Finish:
		return a.Moves.FinishByOperator(ctx, e.by, store, m.ID)
	}
	return m, nil
}

// moveState describes the state of a move in words.
func moveState(m moves.Move) string {
	switch {
	case m.State == moves.Kept && m.Wish == "" && m.KeepUntil != nil:
		return "complete; it can be rolled back until " + m.KeepUntil.UTC().Format(time.RFC3339)
	case m.State == moves.Failed && m.Fault != nil:
		return "failed: " + m.Fault.Message
	case m.Step != "":
		return string(m.State) + ", step " + m.Step
	}
	return string(m.State)
}

// movePrint is the output as JSON. Its field names are those of the API.
type movePrint struct {
	ID         stoa.MoveID `json:"id"`
	State      moves.State `json:"state"`
	Step       string      `json:"step,omitempty"`
	From       string      `json:"from"`
	To         string      `json:"to"`
	RowsCopied int64       `json:"rowsCopied"`
	RowsTotal  int64       `json:"rowsTotal"`
	Changes    int64       `json:"changes"`
	FrozenMs   *int64      `json:"frozenMs"`
	KeepUntil  *time.Time  `json:"keepUntil"`
	Error      *string     `json:"error"`
}

func newMovePrint(m moves.Move) movePrint {
	p := movePrint{ID: m.ID, State: m.State, Step: m.Step, From: m.Source.String(), To: m.Target.String(), RowsCopied: m.RowsCopied, RowsTotal: m.RowsTotal, Changes: m.Changes,
		FrozenMs: m.FrozenMs, KeepUntil: m.KeepUntil}
	if m.Fault != nil {
		p.Error = &m.Fault.Message
	}
	return p
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

// reached returns an error if a settled move is not in the state that was asked for.
func (cmd storesMoveCmd) reached(m moves.Move) error {
	switch {
	case m.State == moves.Succeeded, m.State == moves.Kept && !cmd.Rollback, m.State == moves.RolledBack && cmd.Rollback, m.State == moves.Aborted && cmd.Abort, cmd.Status:
		return nil
	case m.Fault != nil:
		return m.Fault.Err()
	}
	return errors.New("the move is " + moveState(m))
}

// follow prints the progress to standard error until the move is complete or has ended, and
// what was asked for is done.
func (cmd storesMoveCmd) follow(ctx context.Context, e *Env, a *app.App, m moves.Move) (moves.Move, error) {
	tick := time.NewTicker(movePoll)
	defer tick.Stop()
	step, part := "", int64(0)
	for {
		now, err := a.Moves.GetByOperator(ctx, m.StoreID, m.ID)
		if err != nil {
			return m, err
		}
		if m = now; m.Step != step || tenths(m.RowsCopied, m.RowsTotal) > part {
			step, part = m.Step, tenths(m.RowsCopied, m.RowsTotal)
			Printf(e.Stderr, "%s: %s, %s copied, %d changes\n", m.State, step, rowsOf(m.RowsCopied, m.RowsTotal), m.Changes)
		}
		if m.Settled() {
			return m, cmd.reached(m)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return m, ctx.Err()
		}
	}
}
