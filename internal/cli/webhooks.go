package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/webhooks"
)

type webhooksCmd struct {
	Listen webhooksListenCmd `cmd:"" help:"Send events as they happen to an address on this machine."`
}

type webhooksListenCmd struct {
	Store     string         `arg:"" optional:"" help:"Id, slug or hostname of the store; without it, all stores." placeholder:"STORE"`
	ForwardTo string         `help:"Where to send them, such as http://localhost:4000/webhooks; without it they are only printed." placeholder:"URL"`
	Types     []string       `name:"type" help:"Only events of this type; may be repeated." placeholder:"TYPE"`
	Secret    keyring.Secret `help:"The secret that signs them; unless given, a new one is made and printed." env:"STOA_WEBHOOK_SECRET" placeholder:"WHSEC"`
	JSON      bool           `help:"Print each event as a line of JSON."`
}

// Help is shown by 'stoa webhooks listen --help'.
func (webhooksListenCmd) Help() string {
	return "For development. It follows what happens from now on, beside a running 'stoa serve', until it is interrupted. Each event is signed as an endpoint would receive it, " +
		"and sent once; what the program answers is printed. No endpoint has to be added, and nothing is recorded."
}

// listenPoll is how often new events are looked for.
const listenPoll = 300 * time.Millisecond

// Run runs the command.
func (cmd webhooksListenCmd) Run(e *Env) error {
	if err := cmd.check(); err != nil {
		return err
	}
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	var store stoa.StoreID
	if cmd.Store != "" {
		s, err := stores.Find(e.Ctx, master, cmd.Store)
		if err != nil {
			return err
		}
		store = s.ID
	}
	position, err := webhooks.LastPosition(e.Ctx, master)
	if err != nil {
		return err
	}
	secret := cmd.Secret
	if secret.IsZero() {
		secret = webhooks.NewSecret()
		if cmd.ForwardTo != "" {
			fmt.Fprintf(e.Stderr, "secret: %s\n", secret.Reveal())
		}
	}
	fmt.Fprintln(e.Stderr, "waiting for events; stop with Ctrl-C")
	tick := time.NewTicker(listenPoll)
	defer tick.Stop()
	for {
		found, err := webhooks.ReadAfter(e.Ctx, master, store, cmd.Types, position)
		if err != nil && e.Ctx.Err() == nil {
			return err
		}
		for _, event := range found {
			position = event.Position
			if err := cmd.show(e, master, event, secret); err != nil {
				return err
			}
		}
		select {
		case <-e.Ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// check fails for an address or a type that cannot be.
func (cmd webhooksListenCmd) check() error {
	for _, t := range cmd.Types {
		if _, ok := events.KindOf(events.Type(t)); !ok {
			return fmt.Errorf("there is no type %q; docs/webhooks.md lists all", t)
		}
	}
	if cmd.ForwardTo == "" {
		return nil
	}
	u, err := url.Parse(cmd.ForwardTo)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("--forward-to: %q is no address, such as http://localhost:4000/webhooks", cmd.ForwardTo)
	}
	return nil
}

// show prints the event, and forwards it if there is an address.
func (cmd webhooksListenCmd) show(e *Env, master *masterdb.DB, event events.Event, secret keyring.Secret) error {
	outcome := ""
	if cmd.ForwardTo != "" {
		outcome = "  → " + cmd.forward(e.Ctx, event, secret, master.Now())
	}
	if !cmd.JSON {
		_, err := fmt.Fprintf(e.Stdout, "%s  %-32s %s%s\n", event.CreatedAt.Local().Format(time.TimeOnly), event.Type, event.ID, outcome)
		return err
	}
	text, err := event.JSON()
	if err != nil {
		return err
	}
	if outcome != "" {
		fmt.Fprintf(e.Stderr, "%s%s\n", event.ID, outcome)
	}
	_, err = fmt.Fprintf(e.Stdout, "%s\n", text)
	return err
}

// forwardTimeout limits one call, as for an endpoint.
const forwardTimeout = 15 * time.Second

// forward sends the event and returns what came of it.
func (cmd webhooksListenCmd) forward(ctx context.Context, event events.Event, secret keyring.Secret, now time.Time) string {
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	req, err := webhooks.NewRequest(ctx, cmd.ForwardTo, []string{secret.Reveal()}, event, now)
	if err != nil {
		return err.Error()
	}
	answer, err := (&http.Transport{}).RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	_, _ = io.CopyN(io.Discard, answer.Body, 4<<10)
	_ = answer.Body.Close()
	return answer.Status
}
