package webhooks_test

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestEventsAreReadByTheStoresIndex checks that what other stores have done costs a store's
// lists and endpoints nothing, and that the lists are right. The events of the one store are
// the oldest and few; those of the other one fill the table.
func TestEventsAreReadByTheStoresIndex(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		few, many := creditstest.New(t, db).Store, creditstest.New(t, db).Store
		all := addEvents(t, db, 4000, func(i int) stoa.StoreID {
			if i < 40 {
				return few
			}
			return many
		})
		masterdbtest.Analyze(t, db, "events")
		for name, of := range map[string]events.Range{
			"newest of few":            {Store: few, UpTo: math.MaxInt64, NewestFirst: true, Limit: 20},
			"oldest of few":            {Store: few, UpTo: math.MaxInt64, Limit: 20},
			"end of few":               {Store: few, After: 30, UpTo: 4000, Limit: 20},
			"nothing more of few":      {Store: few, After: 40, UpTo: 4000, Limit: 20},
			"newest of many":           {Store: many, UpTo: math.MaxInt64, NewestFirst: true, Limit: 20},
			"part of many":             {Store: many, After: 1000, UpTo: 1010, Limit: 20},
			"of a type":                {Store: many, UpTo: math.MaxInt64, Types: []string{"store.updated", "store.created"}, NewestFirst: true, Limit: 20},
			"newest of all":            {UpTo: math.MaxInt64, NewestFirst: true, Limit: 20},
			"of all, after a position": {After: 35, UpTo: math.MaxInt64, Limit: 20},
			"of all, of a type":        {UpTo: 3000, Types: []string{"store.created"}, NewestFirst: true, Limit: 20},
		} {
			r := &masterdbtest.QueryRecorder{Querier: db}
			got, err := of.Read(t.Context(), r)
			testkit.Must(t, err)
			if want := choose(all, of); !slices.EqualFunc(got, want, func(a, b events.Event) bool { return a.ID == b.ID && a.Position == b.Position }) {
				t.Errorf("%s: %d events, want %d", name, len(got), len(want))
			}
			index := "events_store"
			if of.Store.IsZero() {
				index = "position"
			}
			if plan := r.Plan(t, db); masterdbtest.Sorts(plan) || masterdbtest.ReadsTable(plan) || !strings.Contains(plan, index) {
				t.Errorf("%s: not read by the index of %s:\n%s", name, index, plan)
			}
		}
	})
}

// addEvents writes published events of the stores that of names, with positions from 1 on.
func addEvents(t *testing.T, db *masterdb.DB, n int, of func(i int) stoa.StoreID) []events.Event {
	t.Helper()
	const part = 200
	all := make([]events.Event, n)
	for begin := 0; begin < n; begin += part {
		var args []any
		for i := begin; i < begin+part; i++ {
			store := of(i)
			e := events.Event{ID: stoa.NewID[stoa.EventID](), Position: int64(i + 1), StoreID: &store, Type: events.StoreUpdated}
			if i%7 == 0 {
				e.Type = events.StoreCreated
			}
			all[i] = e
			args = append(args, e.ID, e.Position, store, string(e.Type), `{}`, time.Now())
		}
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			_, err := tx.Exec(t.Context(), `INSERT INTO events (id, position, store_id, type, data, created_at) VALUES `+masterdb.Placeholders(part, 6), args...)
			return err
		}))
	}
	return all
}

// choose selects from all what r does.
func choose(all []events.Event, r events.Range) []events.Event {
	chosen := slices.DeleteFunc(slices.Clone(all), func(e events.Event) bool {
		return e.Position <= r.After || e.Position > r.UpTo || !r.Store.IsZero() && *e.StoreID != r.Store ||
			len(r.Types) > 0 && !slices.Contains(r.Types, string(e.Type))
	})
	if r.NewestFirst {
		slices.SortFunc(chosen, func(a, b events.Event) int { return cmp.Compare(b.Position, a.Position) })
	}
	return chosen[:min(len(chosen), r.Limit)]
}
