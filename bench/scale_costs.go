package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// opCosts is what one operation costs the master.
type opCosts struct {
	Writes        map[string]writes `json:"writes"`        // by table, those of background work included
	Notifications float64           `json:"notifications"` // messages to each replica
	Bytes         float64           `json:"bytes"`         // of these messages, in PostgreSQL's protocol
}

// writes are changes of rows. Dead rows are what autovacuum has to clean up.
type writes struct {
	Inserts float64 `json:"inserts"`
	Updates float64 `json:"updates"`
	Deletes float64 `json:"deletes"`
}

func (w writes) sum() float64 { return w.Inserts + w.Updates + w.Deletes }

// The operations.
const (
	opSpend  = "spend"
	opChange = "change"
	opStore  = "new store"
	opSignIn = "sign-in"
)

// channels are those on which replicas receive notifications; River's have the schema's
// name in front.
var channels = []string{
	"stoa_stores", "stoa_credentials", "stoa_run_ends", "stoa_process_registered", "stoa_supabase_renewals", "events",
	"river_insert", "river_leadership", "river_control", "public.river_insert", "public.river_leadership", "public.river_control",
}

// operation is one kind of work. op does it with the i-th store.
type operation struct {
	name   string
	rounds int
	pause  time.Duration // after each round
	op     func(ctx context.Context, i, round int) error
}

// operations returns the operations. Spends pause for longer than credit changes are
// collected, so that no two are combined into one job.
func (s *scaler) operations(size *scaleSize) []operation {
	return []operation{
		{opSpend, 3, 2500 * time.Millisecond, func(ctx context.Context, i, _ int) error { return s.owner.spend(ctx, s.shops[i].id) }},
		{opChange, 3, 0, func(ctx context.Context, i, round int) error { // the address changes too: what servers have cached is invalid
			name := fmt.Sprintf("moved-%d-%d-%d", size.Stores, i, round)
			return s.owner.call(ctx, http.MethodPatch, "/api/stores/"+s.shops[i].id, object{"name": name, "slug": name}, nil)
		}},
		{opStore, 1, 0, func(ctx context.Context, i, _ int) error {
			_, err := s.owner.openStore(ctx, fmt.Sprintf("new-%d-%d", size.Stores, i), managed())
			return err
		}},
		{opSignIn, 3, 0, func(ctx context.Context, _, _ int) error {
			return (&owner{address: s.address}).call(ctx, http.MethodPost, "/api/auth/login", object{"email": "owner@bench.example", "password": "many-shops-under-1-roof"}, nil)
		}},
	}
}

// measureCosts makes a few of each operation and reads what PostgreSQL has counted.
// Background work of the same time is counted too.
func (s *scaler) measureCosts(ctx context.Context, size *scaleSize) error {
	if err := wait(ctx, s.settle); err != nil { // what the lists wrote, such as entries of the audit log, is counted
		return err
	}
	for _, o := range s.operations(size) {
		if s.Quick {
			o.rounds = 1
		}
		costs, err := s.cost(ctx, func() error { return s.repeat(ctx, o) })
		if err != nil {
			return err
		}
		costs.divide(float64(o.rounds * len(s.shops)))
		size.Costs[o.name] = costs
	}
	return nil
}

func (s *scaler) repeat(ctx context.Context, o operation) error {
	for round := range o.rounds {
		err := inParallel(ctx, len(s.shops), func(ctx context.Context, i int) error { return o.op(ctx, i, round) })
		if err != nil {
			return err
		}
		if err := wait(ctx, o.pause); err != nil {
			return err
		}
	}
	return nil
}

// cost returns what PostgreSQL counts while work is done.
func (s *scaler) cost(ctx context.Context, work func() error) (*opCosts, error) {
	before, err := s.written(ctx)
	if err != nil {
		return nil, err
	}
	heard, stop, err := s.listen(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	if err := work(); err != nil {
		return nil, err
	}
	if err := wait(ctx, s.settle); err != nil {
		return nil, err
	}
	stop()
	after, err := s.written(ctx)
	if err != nil {
		return nil, err
	}
	c := &opCosts{Writes: map[string]writes{}, Notifications: float64(heard.n.Load()), Bytes: float64(heard.bytes.Load())}
	for name, a := range after {
		b := before[name]
		if d := (writes{a.Inserts - b.Inserts, a.Updates - b.Updates, a.Deletes - b.Deletes}); d.sum() > 0 {
			c.Writes[name] = d
		}
	}
	return c, nil
}

func (c *opCosts) divide(n float64) {
	c.Notifications, c.Bytes = c.Notifications/n, c.Bytes/n
	for name, w := range c.Writes {
		c.Writes[name] = writes{w.Inserts / n, w.Updates / n, w.Deletes / n}
	}
}

func (s *scaler) written(ctx context.Context) (map[string]writes, error) {
	rows, err := s.watched.Query(ctx, `SELECT relname::text, n_tup_ins::float8, n_tup_upd::float8, n_tup_del::float8 FROM pg_stat_user_tables`)
	if err != nil {
		return nil, err
	}
	all := map[string]writes{}
	var name string
	var w writes
	_, err = pgx.ForEachRow(rows, []any{&name, &w.Inserts, &w.Updates, &w.Deletes}, func() error {
		all[name] = w
		return nil
	})
	return all, err
}

// notifications counts messages as one replica receives them.
type notifications struct{ n, bytes atomic.Int64 }

func (s *scaler) listen(ctx context.Context) (heard *notifications, stop func(), err error) {
	conn, err := pgx.Connect(ctx, s.databases.address(s.databases.run+"_"+master, s.databases.server.User))
	if err != nil {
		return nil, nil, err
	}
	for _, channel := range channels {
		if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
			return nil, nil, err
		}
	}
	heard = &notifications{}
	listening, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			n, err := conn.WaitForNotification(listening)
			if err != nil {
				return // stopped
			}
			heard.n.Add(1)
			heard.bytes.Add(int64(len("A") + 4 + 4 + len(n.Channel) + 1 + len(n.Payload) + 1)) // as in NotificationResponse
		}
	})
	return heard, sync.OnceFunc(func() {
		cancel()
		running.Wait()
		_ = conn.Close(context.WithoutCancel(ctx)) // nothing is pending
	}), nil
}
