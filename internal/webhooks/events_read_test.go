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
	"github.com/stoahq/stoa/internal/webhooks"
)

// TestEventsAreReadByTheStoresIndex checks that what other stores have done costs a store's
// lists and endpoints nothing, and that the lists are right. The events of the one store are
// the oldest and few; those of the other one fill the tables.
func TestEventsAreReadByTheStoresIndex(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		few, many := creditstest.New(t, db).Store, creditstest.New(t, db).Store
		all := addEvents(t, db, few, many)
		masterdbtest.Analyze(t, db, "events", "event_ranges", "credit_transactions")
		for name, of := range map[string]webhooks.StreamRange{
			"newest of few":            {Store: few, UpTo: math.MaxInt64, NewestFirst: true, Limit: 20},
			"oldest of few":            {Store: few, UpTo: math.MaxInt64, Limit: 20},
			"end of few":               {Store: few, After: 30, UpTo: 4000, Limit: 20},
			"nothing more of few":      {Store: few, After: 40, UpTo: 4000, Limit: 20},
			"newest of many":           {Store: many, UpTo: math.MaxInt64, NewestFirst: true, Limit: 20},
			"part of many":             {Store: many, After: 1000, UpTo: 1010, Limit: 20},
			"within a range":           {Store: many, After: 1006, UpTo: 1008, Limit: 20},
			"newest within a range":    {Store: many, After: 1006, UpTo: 1008, NewestFirst: true, Limit: 1},
			"newest up to a range":     {Store: many, UpTo: 1007, NewestFirst: true, Limit: 20},
			"of a type":                {Store: many, UpTo: math.MaxInt64, Types: []string{"store.updated", "store.created"}, NewestFirst: true, Limit: 20},
			"of a type of credits":     {Store: many, UpTo: math.MaxInt64, Types: []string{"credits.spent", "store.created"}, NewestFirst: true, Limit: 20},
			"newest of all":            {UpTo: math.MaxInt64, NewestFirst: true, Limit: 20},
			"newest of all, in a part": {UpTo: 2008, NewestFirst: true, Limit: 20},
			"of all, after a position": {After: 35, UpTo: math.MaxInt64, Limit: 20},
			"of all, of a type":        {UpTo: 3000, Types: []string{"store.created"}, NewestFirst: true, Limit: 20},
		} {
			r := &masterdbtest.QueryRecorder{Querier: db}
			got, err := of.Read(t.Context(), r, db.Engine)
			testkit.Must(t, err)
			same := func(a, b events.Event) bool {
				return a.ID == b.ID && a.Position == b.Position && a.Type == b.Type && *a.StoreID == *b.StoreID
			}
			if want := choose(all, of); !slices.EqualFunc(got, want, same) {
				t.Errorf("%s: %d events, want %d", name, len(got), len(want))
			}
			indexes := []string{"events_store", "event_ranges_pkey"}
			if db.Engine == masterdb.SQLite {
				indexes[1] = "autoindex_event_ranges_2" // of the primary key
			}
			if of.Store.IsZero() {
				indexes = []string{"position", "event_ranges"}
			}
			plan := r.Plan(t, db)
			if len(of.Types) > 0 && !strings.Contains(strings.Join(of.Types, " "), "credits.") {
				indexes = indexes[:1]
			}
			for _, index := range indexes {
				if !strings.Contains(plan, index) {
					t.Errorf("%s: not read by the index of %s:\n%s", name, index, plan)
				}
			}
			if n := r.RowsRead(t, db); n > 10*of.Limit || masterdbtest.ReadsTable(plan) {
				t.Errorf("%s: reads %d rows:\n%s", name, n, plan)
			}
		}
	})
}

// addEvents writes 4,000 published events, with positions from 1 on: in each ten, four rows of
// events and ranges of four and two transactions. The first forty are of the store few.
func addEvents(t *testing.T, db *masterdb.DB, few, many stoa.StoreID) []events.Event {
	t.Helper()
	const n, part = 4000, 200
	all := make([]events.Event, n)
	seq := map[stoa.StoreID]int64{}
	for begin := 0; begin < n; begin += part {
		var recorded, transactions, ranges []any
		now := time.Now()
		for i := begin; i < begin+part; i++ {
			store := many
			if i < 40 {
				store = few
			}
			e := events.Event{ID: stoa.NewID[stoa.EventID](), Position: int64(i + 1), StoreID: &store, Type: events.StoreUpdated}
			switch {
			case i%10 >= 4:
				seq[store]++
				kind := "spend"
				if e.Type = events.CreditsSpent; i%10 == 9 {
					e.Type, kind = events.CreditsRefunded, "refund"
				}
				transactions = append(transactions, e.ID, store, seq[store], kind, 1, 1, now)
				if i%10 == 7 || i%10 == 9 {
					ranges = append(ranges, store, e.Position-map[int]int64{7: 3, 9: 1}[i%10], e.Position, seq[store], now)
				}
			case i%7 == 0:
				e.Type = events.StoreCreated
				fallthrough
			default:
				recorded = append(recorded, e.ID, e.Position, store, string(e.Type), `{}`, now)
			}
			all[i] = e
		}
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			_, err := tx.Exec(t.Context(), `INSERT INTO events (id, position, store_id, type, data, created_at) VALUES `+masterdb.Placeholders(len(recorded)/6, 6), recorded...)
			if err == nil {
				_, err = tx.Exec(t.Context(), `INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, created_at) VALUES `+
					masterdb.Placeholders(len(transactions)/7, 7), transactions...)
			}
			if err == nil {
				_, err = tx.Exec(t.Context(), `INSERT INTO event_ranges (store_id, first_position, last_position, last_seq, created_at) VALUES `+
					masterdb.Placeholders(len(ranges)/5, 5), ranges...)
			}
			return err
		}))
	}
	return all
}

// choose selects from all what r does.
func choose(all []events.Event, r webhooks.StreamRange) []events.Event {
	chosen := slices.DeleteFunc(slices.Clone(all), func(e events.Event) bool {
		return e.Position <= r.After || e.Position > r.UpTo || !r.Store.IsZero() && *e.StoreID != r.Store ||
			len(r.Types) > 0 && !slices.Contains(r.Types, string(e.Type))
	})
	if r.NewestFirst {
		slices.SortFunc(chosen, func(a, b events.Event) int { return cmp.Compare(b.Position, a.Position) })
	}
	return chosen[:min(len(chosen), r.Limit)]
}
