package main

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	sideDown, sideSent = "down", "sent"
	shopBehind         = 1 // its endpoint was down for long
)

// backlogCmd measures what an endpoint costs the others that was down for so long that very
// many events wait for it: while it is down, and while it is sent them.
type backlogCmd struct {
	common
	Waiting  int           `default:"771000" help:"How many events wait for the endpoint. The default is what piled up at a dead endpoint elsewhere (keygen-api#771)."`
	Rounds   int           `default:"5" help:"How often each side is measured, in turns."`
	Duration time.Duration `default:"6s" help:"Length of one round of one side."`
}

func (cmd backlogCmd) Run(ctx context.Context) (err error) {
	if cmd.Quick {
		cmd.Waiting, cmd.Rounds, cmd.Duration = 20_000, 1, 2*time.Second
	}
	f, err := startFleet(ctx, cmd.Postgres, fleetPlan{stores: 2, open: openEmbedded, settings: []string{"STOA_QUOTA_WEBHOOKS=0"}, prepare: verifyEmails})
	if f != nil {
		defer func() { err = f.stop(ctx, err) }()
	}
	if err != nil {
		return err
	}
	b, err := startBacklog(ctx, f, cmd.Waiting)
	if err != nil {
		return err
	}
	defer b.close()
	sides := []side{{name: sideSteady, label: "nothing is due"}, {name: sideDown, label: "beside one that is down"}, {name: sideSent, label: "beside one being sent them"}}
	rounds, err := takeTurns(ctx, cmd.Rounds, sides, func(ctx context.Context, s side) (result, error) {
		return b.measure(ctx, s.name, cmd.Duration)
	})
	if err != nil {
		return err
	}
	r := newReport("backlog", sides, rounds)
	r.About = fmt.Sprintf("200 events/s to one endpoint while %d wait for another, %d rounds of %gs, medians; load and endpoints share the machine", cmd.Waiting, cmd.Rounds, cmd.Duration.Seconds())
	p95 := func(x result) float64 { return float64(x.P95) }
	r.atMost("p95 beside the one that is down, of nothing due", r.compare(sideDown, sideSteady, p95), deadTarget)
	r.tell("p95 beside the one being sent its events, of nothing due", r.compare(sideSent, sideSteady, p95))
	r.tell("sent of those that waited", figure{Value: float64(b.sent.Load()) / b.sending.Seconds(), Unit: "/s"})
	r.tell("list of the endpoints, while they wait", figure{Value: inMilliseconds(b.list), Unit: " ms"})
	r.tell("newest page of the store's events", figure{Value: inMilliseconds(b.page), Unit: " ms"})
	return r.finish(cmd.JSON)
}

// backlog is a store of which many events wait for an endpoint.
type backlog struct {
	*arrivals
	f          *fleet
	sent       atomic.Int64  // of those that waited
	sending    time.Duration // how long they were sent
	list, page time.Duration // how long two lists about them take
}

func startBacklog(ctx context.Context, f *fleet, waiting int) (*backlog, error) {
	a, err := startArrivals(ctx)
	if err != nil {
		return nil, err
	}
	b := &backlog{arrivals: a, f: f}
	if err := b.fill(ctx, waiting); err != nil {
		a.close()
		return nil, err
	}
	return b, nil
}

// fill gives each store its endpoint, and the one that is behind its events, as publication
// leaves them.
func (b *backlog) fill(ctx context.Context, waiting int) error {
	for i, path := range []string{shopOfOne: "/alive", shopBehind: "/behind"} {
		if err := enrich(ctx, b.f, b.f.shops[i]); err != nil {
			return err
		}
		if err := b.add(ctx, b.f, b.f.shops[i].id, path, "credits.spent"); err != nil {
			return err
		}
	}
	progress("writing %d events", waiting)
	store := b.f.shops[shopBehind].id
	for _, statement := range []string{
		// The stream is moved first: a publisher waits for the statement, or begins anew.
		`WITH moved AS (UPDATE event_stream SET position = position + $2::bigint RETURNING position),
			account AS (UPDATE credit_balances SET balance = balance - $2::bigint, lifetime_spent = lifetime_spent + $2::bigint, seq = seq + $2::bigint, version = version + 1
				WHERE store_id = $1::uuid RETURNING balance, seq),
			spent AS (INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, description, created_at)
				SELECT gen_random_uuid(), $1::uuid, a.seq - $2::bigint + n, 'spend', -1, a.balance + $2::bigint - n, 'An import', now() - make_interval(secs => 86400 - n * 0.1)
				FROM account a, generate_series(1, $2::bigint) n),
			published AS (INSERT INTO published_credits (store_id, seq) SELECT $1::uuid, seq FROM account ON CONFLICT (store_id) DO UPDATE SET seq = excluded.seq)
			INSERT INTO event_ranges (store_id, first_position, last_position, last_seq, created_at)
			SELECT $1::uuid, m.position - $2::bigint + n, m.position - $2::bigint + n, a.seq - $2::bigint + n, now() - make_interval(secs => 86400 - n * 0.1)
			FROM moved m, account a, generate_series(1, $2::bigint) n`,
		`UPDATE webhook_endpoints SET last_position = (SELECT position FROM event_stream) WHERE store_id = $1::uuid AND $2::bigint > 0`,
	} {
		if err := execMaster(ctx, b.f, statement, store, waiting); err != nil {
			return err
		}
	}
	if err := execMaster(ctx, b.f, `ANALYZE`); err != nil {
		return err
	}
	var err error
	if b.list, err = b.time(ctx, "/api/stores/"+store+"/webhooks"); err == nil {
		b.page, err = b.time(ctx, "/api/stores/"+store+"/events?limit=100")
	}
	return err
}

// time returns the shortest of five calls.
func (b *backlog) time(ctx context.Context, path string) (shortest time.Duration, err error) {
	for i := range 5 {
		begin := time.Now()
		if err := b.f.owner.call(ctx, http.MethodGet, path, nil, nil); err != nil {
			return 0, err
		}
		if took := time.Since(begin); i == 0 || took < shortest {
			shortest = took
		}
	}
	return shortest, nil
}

// setDue makes the endpoint that is behind due at once, or in an hour.
func (b *backlog) setDue(ctx context.Context, due bool) error {
	wait := "1 hour"
	if due {
		wait = "0"
	}
	return execMaster(ctx, b.f, `UPDATE webhook_endpoints SET next_at = now() + $2::interval, failures = 0, failing_since = NULL WHERE store_id = $1::uuid`,
		b.f.shops[shopBehind].id, wait)
}

// measure makes events for the one endpoint, in the state of the other that the side names.
func (b *backlog) measure(ctx context.Context, side string, duration time.Duration) (result, error) {
	b.behindIsAlive.Store(side == sideSent)
	if err := b.setDue(ctx, side != sideSteady); err != nil {
		return result{}, err
	}
	before, begin := b.behind.Load(), time.Now()
	res, err := b.arrivals.measure(ctx, b.f, shopOfOne, 1, 200, duration)
	if side == sideSent {
		b.sent.Add(b.behind.Load() - before)
		b.sending += time.Since(begin)
	}
	b.behindIsAlive.Store(false)
	return res, err
}
