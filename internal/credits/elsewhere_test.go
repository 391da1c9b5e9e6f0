package credits_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestServersHearOfChangesByCommands checks that the ledger of a server tells of a change that
// another process has made which is no server, long before any sweep.
func TestServersHearOfChangesByCommands(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			url := masterdbtest.URL(t, engine)
			server, command := masterdbtest.Open(t, url), masterdbtest.Open(t, url)
			changed := make(chan stoa.StoreID, 100)
			credits.New(server).OnChange(func(store stoa.StoreID) { changed <- store })
			ctx, stop := context.WithCancel(context.Background())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				server.Listen(ctx, slog.New(slog.DiscardHandler))
			}()
			t.Cleanup(func() { stop(); <-ended })

			b := creditstest.New(t, command)
			deadline := time.After(time.Minute)
			for { // the server may not listen yet
				_, err := b.Grant(t.Context(), credits.Grant{Type: credits.TypeBonus, Amount: credits.Credit, IdempotencyKey: stoa.NewID[stoa.TransactionID]().String()})
				testkit.Must(t, err)
				select {
				case store := <-changed:
					if store != b.Store {
						t.Errorf("told of %s, not of %s", store, b.Store)
					}
					return
				case <-time.After(2 * time.Second):
				case <-deadline:
					t.Fatal("the server has heard of nothing")
				}
			}
		})
	}
}
