package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// moveFreezeTarget is how long a write may take, in milliseconds, while the store is moved.
const moveFreezeTarget = 1000

// moveCmd moves a store between databases while its own software writes into them and
// shoppers read. Each acknowledged write is looked for afterwards.
type moveCmd struct {
	common
	MySQL  string `required:"" name:"mysql" env:"STOA_TEST_MYSQL_URL" help:"A MariaDB or MySQL where this may make databases and users; they are dropped at the end." placeholder:"URL"`
	Other  string `name:"other-postgres" env:"STOA_TEST_POSTGRES18_URL" help:"Another PostgreSQL server. Without it the first move leads to another database of the same server." placeholder:"URL"`
	Rate   int    `default:"200" help:"Writes a second."`
	Writes int    `default:"2500" help:"Writes that are acknowledged during one move, at least."`
	Moves  int    `default:"3" help:"Moves of one round, at most 3: to the other PostgreSQL, to MariaDB, to PostgreSQL."`
	Rounds int    `default:"3" help:"How often the store goes this way."`
	MB     int    `name:"mb" default:"20" help:"Size of the store at first, in millions of bytes of its rows."`
}

// moveSide is a move to one kind of database.
type moveSide struct {
	side
	engine string // "type" of connect-database
	create func(ctx context.Context, name string) (address string, err error)
}

// moveBench is one run.
type moveBench struct {
	moveCmd
	*fleet
	other    *databases
	mysql    *mysqlDatabases
	sides    []moveSide
	shop     shop
	software *software
	made     int

	freezes []time.Duration // the slowest write of each move
	locked  []float64       // what the platform says of each move: how long writers waited, in ms
	reads   reads
	found   losses
}

func (cmd moveCmd) Run(ctx context.Context) (err error) {
	if cmd.Quick {
		cmd.Writes, cmd.Rounds, cmd.MB = 400, 1, 1
	}
	if cmd.Moves < 1 || cmd.Moves > 3 || cmd.Rounds < 1 || cmd.Rate < 1 {
		return errors.New("--moves is 1 to 3, --rounds and --rate are at least 1")
	}
	b := &moveBench{moveCmd: cmd}
	b.fleet, err = startFleet(ctx, cmd.Postgres, fleetPlan{})
	if b.fleet != nil {
		defer func() { err = b.stop(ctx, err) }()
	}
	if err != nil {
		return err
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	defer b.software.close()
	var sides []side
	for _, s := range b.sides {
		sides = append(sides, s.side)
	}
	var rounds []round
	for i := range cmd.Rounds {
		r := round{}
		for _, s := range b.sides {
			if r[s.name], err = b.turn(ctx, s); err != nil {
				return err
			}
			progress("round %d of %d, %s: %d writes at %.0f/s, the slowest took %s", i+1, cmd.Rounds, s.label, r[s.name].Requests, r[s.name].Throughput, milliseconds(r[s.name].Slowest))
		}
		rounds = append(rounds, r)
	}
	return b.report(sides, rounds).finish(cmd.JSON)
}

// prepare opens a store with rows in PostgreSQL, and connects its software.
func (b *moveBench) prepare(ctx context.Context) (err error) {
	if b.mysql, err = openMySQLDatabases(b.MySQL, b.databases.run); err != nil {
		return err
	}
	b.other = b.databases
	if b.Other != "" {
		if b.other, err = openDatabases(ctx, b.Other); err != nil {
			return err
		}
	}
	b.sides = []moveSide{
		{side{name: "toOther", label: "PostgreSQL to another PostgreSQL"}, "postgresql", b.other.create},
		{side{name: "toMariaDB", label: "PostgreSQL to MariaDB"}, "mysql", b.mysql.create},
		{side{name: "toPostgres", label: "MariaDB to PostgreSQL"}, "postgresql", b.databases.create},
	}[:b.Moves]
	if b.shop, err = openOwn(ctx, b.fleet, "moving"); err != nil {
		return err
	}
	progress("filling the store with %d MB", b.MB)
	if err := fillShop(ctx, b.shop.databaseURL, int64(b.MB)*1e6); err != nil {
		return err
	}
	b.software, err = startSoftware(ctx, b.shop.databaseURL)
	return err
}

// turn moves the store to a new database while its software writes and shoppers read. It
// then looks for every write that was acknowledged so far.
func (b *moveBench) turn(ctx context.Context, s moveSide) (result, error) {
	b.made++
	address, err := s.create(ctx, fmt.Sprintf("m%d", b.made))
	if err != nil {
		return result{}, err
	}
	from := b.software.address
	shoppers := b.reads.begin(ctx, b.address, b.shop)
	writes := b.software.begin(ctx, b.Rate, address, b.isSwapped)
	m, err := b.move(ctx, s, address, func() bool { return writes.acknowledged() >= b.Writes })
	res := writes.end()
	shoppers()
	if err != nil {
		return result{}, err
	}
	b.freezes = append(b.freezes, res.Slowest)
	if m.FrozenMs != nil { // otherwise the move was interrupted
		b.locked = append(b.locked, float64(*m.FrozenMs))
	}
	if res.Errors == 0 && b.software.address != address {
		return result{}, fmt.Errorf("%s: the software was never refused by the old database", s.label)
	}
	found, err := b.software.verify(ctx)
	b.found.lost, b.found.doubled = max(b.found.lost, found.lost), max(b.found.doubled, found.doubled)
	if err != nil {
		return result{}, err
	}
	return res, b.dropAt(ctx, from)
}

// movement is a move, as the API shows it.
type movement struct {
	ID, State string
	FrozenMs  *int64
	Error     *struct{ Message string }
}

func (b *moveBench) movesPath() string { return "/api/stores/" + b.shop.id + "/moves" }

// isSwapped reports whether the store uses its new database, as its owner would look it up.
func (b *moveBench) isSwapped(ctx context.Context) (bool, error) {
	var all struct{ Data []movement }
	if err := b.owner.call(ctx, http.MethodGet, b.movesPath()+"?limit=1", nil, &all); err != nil {
		return false, err
	}
	return len(all.Data) == 1 && (all.Data[0].State == "kept" || all.Data[0].State == "succeeded"), nil
}

// move moves the store, waits until enough is written, and gives up the old database.
func (b *moveBench) move(ctx context.Context, s moveSide, address string, enough func() bool) (m movement, err error) {
	if err := pause(ctx, 500*time.Millisecond); err != nil { // writes before the move
		return m, err
	}
	if err := b.owner.call(ctx, http.MethodPost, b.movesPath(), object{"database": object{"type": s.engine, "connectionString": address}}, &m); err != nil {
		return m, err
	}
	if m, err = b.awaitMove(ctx, m, "kept"); err != nil {
		return m, err
	}
	for !enough() {
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return m, err
		}
	}
	if err := b.owner.call(ctx, http.MethodPost, b.movesPath()+"/"+m.ID+"/finish", nil, &m); err != nil {
		return m, err
	}
	return b.awaitMove(ctx, m, "succeeded")
}

func (b *moveBench) awaitMove(ctx context.Context, m movement, state string) (movement, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for m.State != state {
		if m.Error != nil {
			return m, fmt.Errorf("the move is %s: %s", m.State, m.Error.Message)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return m, fmt.Errorf("the move is %s and not %s: %w", m.State, state, err)
		}
		if err := b.owner.call(ctx, http.MethodGet, b.movesPath()+"/"+m.ID, nil, &m); err != nil {
			return m, err
		}
	}
	return m, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dropAt drops the database that the store has left.
func (b *moveBench) dropAt(ctx context.Context, address string) error {
	if isMySQL(address) {
		return b.mysql.drop(ctx, address)
	}
	u, err := url.Parse(address)
	if err == nil && u.Host == b.other.server.Host {
		return b.other.drop(ctx, address)
	}
	return b.databases.drop(ctx, address)
}

func (b *moveBench) report(sides []side, rounds []round) *report {
	r := newReport("move", sides, rounds)
	r.About = fmt.Sprintf("%d moves of a store while its software writes %d rows a second, each with a count in the same transaction, and shoppers read; throughput and times are those of writes",
		len(b.freezes), b.Rate)
	must := func(what string, n int) { r.atMost(what, figure{Value: float64(n)}, 0).Must = true }
	r.tell("writes acknowledged", figure{Value: float64(b.software.total())})
	must("acknowledged writes lost", b.found.lost)
	must("writes found twice, or never acknowledged", b.found.doubled)
	r.tell("storefront reads", figure{Value: float64(b.reads.done)})
	must("storefront reads that failed", b.reads.failed)
	r.tell("slowest read", figure{Value: inMilliseconds(b.reads.longest), Unit: " ms"})
	r.tell("the slowest write of a move, median", figure{Value: inMilliseconds(median(b.freezes)), Unit: " ms"})
	r.atMost("the slowest write of all moves", figure{Value: inMilliseconds(slices.Max(b.freezes)), Unit: " ms"}, moveFreezeTarget)
	if len(b.locked) > 0 {
		r.tell("writers stopped, as the platform says, median", figure{Value: median(b.locked), Unit: " ms"})
		r.tell("writers stopped, as the platform says, longest", figure{Value: slices.Max(b.locked), Unit: " ms"})
	}
	return r
}

// stop removes what is on the other servers, and then the fleet.
func (b *moveBench) stop(ctx context.Context, why error) error {
	if b.reads.fault != nil {
		why = errors.Join(why, fmt.Errorf("%d reads failed, the first: %w", b.reads.failed, b.reads.fault))
	}
	errs := []error{b.fleet.stop(ctx, why)}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if b.mysql != nil {
		errs = append(errs, b.mysql.dropAll(ctx))
	}
	if b.other != nil && b.other != b.databases {
		errs = append(errs, b.other.dropAll(ctx))
	}
	return errors.Join(errs...)
}
