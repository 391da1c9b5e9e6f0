package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// These are the limits for the effect of an attack on the platform: the latency of the
// other stores' requests at the 99th percentile, and the platform's resident memory in MiB
// beyond what it uses without an attack.
const (
	attackTargetP99    = 1.25
	attackTargetMemory = 200
)

// attacksCmd measures how much owners of stores and shoppers who attack the platform slow
// down the requests of other stores, and how far the platform's memory grows.
type attacksCmd struct {
	common
	Stores   int           `default:"20" help:"Stores that are measured, each with a database of its own."`
	Rounds   int           `default:"4" help:"How often each is measured, in turns."`
	Duration time.Duration `default:"10s" help:"Length of one turn."`
	Only     []string      `help:"Attacks to measure, by name; unless told, all." placeholder:"NAME"`
	Pace     time.Duration `default:"40ms" help:"Of one connection of load, from request to request: the machine has room for the attackers' own work."`
}

// attackers is the number of concurrent attackers. Each is a separate user.
const attackers = 4

// attack is the code that attackers run until the context is done. The attackers control
// server, a database server that the platform connects to.
type attack struct {
	name, label string
	server      func(context.Context) (hostile, error)          // nil: the attack needs no server
	run         func(context.Context, *attacked, hostile) error // run by each attacker
}

// attacked is the target of the attackers.
type attacked struct {
	*fleet
	as      []*owner // the attackers
	stores  []string // one store of each attacker, without a database
	large   shop     // its page of products is as long as possible
	trapped shop     // its copy of the credits cannot be updated
}

func (cmd attacksCmd) Run(ctx context.Context) (err error) {
	if cmd.Quick {
		cmd.Stores, cmd.Rounds, cmd.Duration = 5, 1, 2*time.Second
	}
	f, err := startFleet(ctx, cmd.Postgres, fleetPlan{
		stores: cmd.Stores + 2, prepare: prepareTemplate, open: openCloned,
		settings: append(budget(200), "STOA_RATE_LIMIT_DATABASE=120"), // the default, which the other measurements disable
	})
	if f != nil {
		defer func() { err = f.stop(ctx, err) }()
	}
	if err != nil {
		return err
	}
	return cmd.measure(ctx, f)
}

func (cmd attacksCmd) measure(ctx context.Context, f *fleet) error {
	t := &attacked{fleet: f, large: f.shops[cmd.Stores], trapped: f.shops[cmd.Stores+1]}
	if err := t.prepare(ctx); err != nil {
		return err
	}
	load := cmd.load(f.address, f.shops[:cmd.Stores], goRound, cmd.Duration)
	load.Pace = cmd.Pace
	sides := []side{{"calm", "no attack", 2 * time.Second, load}}
	if err := warmUp(ctx, sides); err != nil {
		return err
	}
	chosen := slices.DeleteFunc(slices.Clone(attacks), func(a attack) bool { return len(cmd.Only) > 0 && !slices.Contains(cmd.Only, a.name) })
	byName := map[string]attack{}
	for _, a := range chosen {
		byName[a.name] = a
		sides = append(sides, side{a.name, a.label, 0, load})
	}
	memory := map[string][]float64{}
	rounds, err := takeTurns(ctx, cmd.Rounds, sides, func(ctx context.Context, s side) (result, error) {
		res, peak, err := t.under(ctx, byName[s.name], s.job)
		memory[s.name] = append(memory[s.name], peak)
		return res, err
	})
	if err != nil {
		return err
	}
	r := newReport("attacks", sides, rounds)
	r.About = about(cmd.Stores, goRound, cmd.Connections, cmd.Rounds, cmd.Duration) +
		fmt.Sprintf("; each connection asks %d times a second; %d attackers", int(time.Second/cmd.Pace), attackers)
	for _, a := range chosen {
		r.atMost("p99 under: "+a.label, r.p99(a.name, "calm"), attackTargetP99)
		grown := median(memory[a.name]) - median(memory["calm"])
		r.atMost("resident memory beyond calm under: "+a.label, figure{Value: grown, Unit: " MiB"}, attackTargetMemory)
	}
	return r.finish(cmd.JSON)
}

// under runs the load during the attack. It returns the platform's highest resident memory
// during the attack, in MiB.
func (t *attacked) under(ctx context.Context, a attack, j job) (res result, peak float64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := hostile{}
	if a.server != nil {
		if h, err = a.server(ctx); err != nil {
			return res, 0, err
		}
	}
	var running sync.WaitGroup
	faults := make([]error, attackers)
	if a.run != nil {
		for i := range attackers {
			h.attacker = i
			running.Go(func() { faults[i] = a.run(ctx, t, h) })
		}
	}
	highest := watch(ctx, func(context.Context) (map[string]int, error) {
		m, err := readMemory(t.process.pid())
		return map[string]int{"resident": int(m.now)}, err
	})
	res, err = runLoad(ctx, j)
	counts, watchErr := highest()
	cancel()
	running.Wait()
	return res, float64(counts["resident"]), errors.Join(append(faults, err, watchErr, t.process.ended())...)
}

// prepare creates the attackers and their stores.
func (t *attacked) prepare(ctx context.Context) error {
	for i := range attackers {
		o, err := registerAs(ctx, t.address, fmt.Sprintf("attacker%d@bench.example", i))
		if err != nil {
			return err
		}
		id, err := o.create(ctx, fmt.Sprintf("attack-%d", i))
		if err != nil {
			return err
		}
		t.as, t.stores = append(t.as, o), append(t.stores, id)
	}
	if _, err := t.command(ctx, t.data(), "credits", "grant", t.trapped.id, "100000", "--reason=bench"); err != nil {
		return err
	}
	return errors.Join(runAlone(ctx, t.large.databaseURL, longestPage), runAlone(ctx, t.trapped.databaseURL, credulous))
}

const (
	// longestPage fills a page of products with the longest texts that are served. They
	// consist of a character that JSON encodes in six bytes.
	longestPage = `INSERT INTO products (id, name, slug, description, currency, status, created_at, updated_at)
		SELECT gen_random_uuid(), repeat(chr(1), 200), 'p' || n, repeat(chr(1), 5000), 'EUR', 'published', now(), now() FROM generate_series(1, 100) n`
	// credulous makes an update of the copied balance affect no row.
	credulous = `CREATE RULE nothing AS ON UPDATE TO credit_copies DO INSTEAD NOTHING;
		CREATE RULE nothing AS ON UPDATE TO credit_balance_cache DO INSTEAD NOTHING`
)

var attacks = []attack{
	{name: "slow", label: "shoppers who do not read", run: askWithoutReading},
	{name: "trap", label: "a copy of credits that stays as it is", run: spendInTrap},
	{name: "columns", label: "MySQL: 2^40 columns", server: manyColumns, run: testDatabase},
	{name: "reports", label: "PostgreSQL: 30 MB of reports", server: manyReports, run: testDatabase},
	{name: "iterations", label: "PostgreSQL: SCRAM as slow as may be", server: manyIterations, run: testDatabase},
}

// askWithoutReading keeps ten connections open, requests the longest page on each, and
// reads no response.
func askWithoutReading(ctx context.Context, t *attacked, _ hostile) error {
	for ctx.Err() == nil {
		var conns []net.Conn
		for range 10 {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.address)
			if err != nil {
				break
			}
			conns = append(conns, conn)
			_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			_, _ = fmt.Fprintf(conn, "GET /api/storefront/products?limit=100 HTTP/1.1\r\nHost: %s\r\n\r\n", t.large.host)
		}
		rest(ctx, 2*time.Second)
		for _, conn := range conns {
			_ = conn.Close()
		}
	}
	return nil
}

// spendInTrap spends credits regularly, so that there is always a balance to copy.
func spendInTrap(ctx context.Context, t *attacked, _ hostile) error {
	for ctx.Err() == nil {
		if err := t.owner.spend(ctx, t.trapped.id); err != nil && ctx.Err() == nil {
			return err
		}
		rest(ctx, 100*time.Millisecond)
	}
	return nil
}

// testDatabase makes the platform connect to the attackers' server as often as the rate
// limit allows.
func testDatabase(ctx context.Context, t *attacked, h hostile) error {
	for ctx.Err() == nil {
		err := t.as[h.attacker].call(ctx, "POST", "/api/stores/"+t.stores[h.attacker]+"/database/test", h.database, nil)
		if err != nil && ctx.Err() == nil && !strings.Contains(err.Error(), "429") {
			return err
		}
		if err != nil {
			rest(ctx, 250*time.Millisecond)
		}
	}
	return nil
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// hostile is a database server that the attackers control.
type hostile struct {
	database object // the connection settings that the platform receives
	attacker int
}

// serve accepts connections until ctx is done.
func serve(ctx context.Context, scheme, dialect string, speak func(net.Conn)) (hostile, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return hostile{}, err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				speak(conn)
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	off := map[string]string{"postgresql": "sslmode=disable", "mysql": "tls=false"}[dialect]
	return hostile{database: object{"type": dialect, "connectionString": fmt.Sprintf("%s://u:p@%s/d?%s", scheme, l.Addr(), off)}}, nil
}
