package app_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// teller makes a call on the account under a key. An error means that the effect of the
// call is unknown.
type teller func(ctx context.Context, c bankCall, key string) (bankAnswer, error)

// script generates and records a history.
type script struct {
	t      *testing.T
	kinds  []bankKind // the kinds to choose from
	began  time.Time
	holds  atomic.Int64 // the number of holds
	doubts atomic.Int64 // calls whose effect stays unknown

	mu      sync.Mutex
	history []porcupine.Operation
	open    []bankCall // open holds, as calls that capture all of each
}

const (
	linearClients = 6
	linearCalls   = 30 // per client
	linearDoubts  = 6  // with more of them the check takes too long, since each may have happened at any time
)

// run makes calls from concurrent clients, client i at tellers[i%len(tellers)], and
// returns the history. It ends with a read of the account.
func (s *script) run(tellers ...teller) []porcupine.Operation {
	s.t.Helper()
	s.began = time.Now()
	s.call(-1, bankCall{kind: bankGrant, amount: 500}, "first", tellers[0])
	var clients sync.WaitGroup
	for i := range linearClients {
		clients.Go(func() {
			for n := range linearCalls {
				c := s.draw()
				key := fmt.Sprintf("%d/%d", i, n)
				if c.key > 0 {
					key = fmt.Sprintf("shared/%d", c.key)
				}
				s.call(i, c, key, tellers[i%len(tellers)])
			}
		})
	}
	clients.Wait()
	s.call(-1, bankCall{}, "", tellers[0])
	return s.history
}

// draw chooses a call. Many of the calls must be refused.
func (s *script) draw() bankCall {
	c := bankCall{kind: s.kinds[rand.N(len(s.kinds))], amount: 1 + rand.Int64N(120)}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch c.kind {
	case bankSpend:
		if rand.N(4) == 0 {
			c.key = 1 + rand.N(10)
			c.amount = int64(10 * c.key) // the same amount for the same key
		}
	case bankHold:
		c.hold = int(s.holds.Add(1)) - 1
		if c.hold > 63 {
			return bankCall{}
		}
	case bankCapture, bankRelease:
		if len(s.open) == 0 {
			return bankCall{}
		}
		kind := c.kind
		c = s.open[rand.N(len(s.open))] // another client may choose it too
		c.kind = kind
		if kind == bankCapture {
			c.amount = 1 + rand.Int64N(c.held)
		}
	case bankRead, bankGrant:
	}
	return c
}

// call makes the call, and sometimes does not wait for the answer. After a lost answer
// it usually repeats the call under the same key, and records both as one long call.
// Otherwise the effect stays unknown.
func (s *script) call(client int, c bankCall, key string, tell teller) {
	ctx := s.t.Context()
	if client >= 0 && rand.N(4) == 0 {
		short, cancel := context.WithTimeout(ctx, rand.N(4*time.Millisecond))
		defer cancel()
		ctx = short
	}
	op := porcupine.Operation{ClientId: max(0, client), Input: c, Call: int64(time.Since(s.began))}
	a, err := tell(ctx, c, key)
	if err != nil && (client < 0 || c.kind == bankRead || rand.N(4) > 0 || s.doubts.Add(1) > linearDoubts) {
		for deadline := time.Now().Add(30 * time.Second); err != nil && time.Now().Before(deadline) && !s.t.Failed(); <-time.After(time.Millisecond) {
			a, err = tell(s.t.Context(), c, key)
		}
		if err != nil {
			s.t.Errorf("no answer at last: %v", err)
		}
		a.seen = a.seen && c.kind == bankRead
	}
	if c.key > 0 { // the call may be a repetition
		a.seen = false
	}
	op.Return, op.Output = int64(time.Since(s.began)), a
	if err != nil {
		op.Return, op.Output = never, bankAnswer{unknown: true}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history = append(s.history, op)
	if c.kind == bankHold && err == nil && !a.refused {
		s.open = append(s.open, bankCall{amount: c.amount, held: c.amount, hold: c.hold})
	}
}

// clerk makes calls without a server, on a ledger with a database handle of its own.
type clerk struct {
	db     *masterdb.DB
	ledger *credits.Ledger
	p      authz.Principal
	store  stoa.StoreID
	holds  *sync.Map // ids by the number of the hold
}

func (k clerk) tell(ctx context.Context, c bankCall, key string) (bankAnswer, error) {
	request := credits.SpendRequest{Amount: credits.Amount(c.amount), IdempotencyKey: key}
	id := func() stoa.HoldID { id, _ := k.holds.Load(c.hold); return id.(stoa.HoldID) }
	switch c.kind {
	case bankRead:
		b, err := k.ledger.Balance(ctx, k.p, k.store)
		return answered(nil, &b, err)
	case bankGrant:
		var t credits.Transaction
		err := k.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
			t, err = k.ledger.Grant(ctx, tx, k.store, credits.Grant{Type: credits.TypeBonus, Amount: credits.Amount(c.amount), IdempotencyKey: key})
			return err
		})
		return answered(&t, nil, err)
	case bankSpend:
		out, err := k.ledger.Spend(ctx, k.p, k.store, request)
		return answered(&out.Transaction, &out.Balance, err)
	case bankHold:
		out, err := k.ledger.Hold(ctx, k.p, k.store, credits.HoldRequest{SpendRequest: request})
		if err == nil {
			k.holds.Store(c.hold, out.Hold.ID)
		}
		return answered(nil, &out.Balance, err)
	case bankCapture:
		out, err := k.ledger.Capture(ctx, k.p, k.store, id(), credits.CaptureRequest{Amount: request.Amount, IdempotencyKey: key})
		return answered(out.Transaction, &out.Balance, err)
	default:
		out, err := k.ledger.Release(ctx, k.p, k.store, id(), key)
		return answered(nil, &out.Balance, err)
	}
}

// answered converts an outcome to an answer, or returns the error when the outcome is
// unknown.
func answered(t *credits.Transaction, b *credits.Balance, err error) (bankAnswer, error) {
	switch stoa.CodeOf(err) {
	case stoa.InsufficientCredits, stoa.HoldNotOpen:
		return bankAnswer{refused: true}, nil
	case "":
	default:
		return bankAnswer{}, err
	}
	var a bankAnswer
	if t != nil {
		a.recorded, a.seq, a.after = true, t.Sequence, int64(t.BalanceAfter)
	}
	if b != nil {
		a.seen, a.balance, a.reserved = true, int64(b.Balance), int64(b.Reserved)
	}
	return a, nil
}

// TestLedgerLinearizability checks that two ledgers on one master, each with a handle of its
// own as in two processes, act as one account. On PostgreSQL connections are cut
// meanwhile.
func TestLedgerLinearizability(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		for round := range 2 {
			t.Run(fmt.Sprintf("%s/%d", engine, round), func(t *testing.T) {
				t.Parallel()
				c := newCounter(t, engine)
				first, tellers := clerk{c.db, c.ledger, authz.Principal{}, c.store("shop", "active"), &sync.Map{}}, []teller(nil)
				first.p = c.ownerOf(first.store)
				for range 2 {
					db := masterdbtest.Open(t, c.url())
					k := first
					k.db, k.ledger = db, credits.New(db)
					tellers = append(tellers, k.tell)
				}
				s := &script{t: t, kinds: []bankKind{bankRead, bankGrant, bankSpend, bankSpend, bankSpend, bankHold, bankHold, bankCapture, bankCapture, bankRelease}}
				stop := func() {}
				if engine == masterdb.Postgres {
					stop = c.cutConnections()
				}
				history := s.run(tellers...)
				stop()
				s.judge(history)
				if status, out, errOut := c.stoa("credits", "verify"); status != 0 {
					t.Errorf("status %d: %s%s", status, out, errOut)
				}
			})
		}
	}
}

// judge checks the history. It also checks that the check itself works: a history with
// one wrong answer must be rejected.
func (s *script) judge(history []porcupine.Operation) {
	s.t.Helper()
	checkBank(s.t, history)
	counts := map[string]int{}
	var reads, spends []porcupine.Operation
	for _, op := range history {
		c, a := op.Input.(bankCall), op.Output.(bankAnswer)
		switch {
		case a.unknown:
			counts["unknown"]++
		case a.refused:
			counts["refused"]++
		case c.kind == bankRead:
			reads = append(reads, op)
		default:
			counts["done"]++
			if c.kind == bankCapture || c.kind == bankRelease {
				counts["resolved"]++
			}
			if c.kind == bankSpend && c.key == 0 {
				spends = append(spends, op)
			}
		}
	}
	s.t.Logf("%v", counts)
	if counts["done"] < linearCalls || counts["refused"] == 0 || counts["resolved"] == 0 || len(reads) == 0 || len(spends) == 0 {
		s.t.Fatalf("too few calls of a kind: %v", counts)
	}
	spend, begun := s.earliest(history, spends)
	read, before := s.earliest(history, reads)
	stale := read
	a := read.Output.(bankAnswer)
	a.balance += 1 << 40 // more than all unknown calls could explain
	stale.Output = a
	before[slices.Index(before, read)] = stale
	for name, wrong := range map[string][]porcupine.Operation{"a balance that never was": before, "one row for two spends": append(begun, spend)} {
		if got := porcupine.CheckOperationsTimeout(bankModel, wrong, 2*time.Minute); got != porcupine.Illegal {
			s.t.Errorf("%s: the check says %s of %d calls", name, got, len(wrong))
		}
	}
}

// earliest returns the call of some that was answered first, and all calls that had
// begun by then, which are a valid history of their own. The search in a whole history
// that is invalid may not end, since it tries every position of the unknown calls.
func (s *script) earliest(history, some []porcupine.Operation) (porcupine.Operation, []porcupine.Operation) {
	s.t.Helper()
	slices.SortFunc(some, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	for _, op := range some {
		begun := slices.DeleteFunc(slices.Clone(history), func(o porcupine.Operation) bool { return o.Call > op.Return })
		// A call that was answered later may have observed a call that is left out.
		if porcupine.CheckOperationsTimeout(bankModel, begun, 20*time.Second) == porcupine.Ok {
			return op, begun
		}
	}
	s.t.Fatal("no beginning of the history is right")
	return porcupine.Operation{}, nil
}

func (c counter) ownerOf(store stoa.StoreID) authz.Principal {
	c.t.Helper()
	var p authz.Principal
	if err := c.db.Get(c.t.Context(), &p.UserID, `SELECT created_by FROM stores WHERE id = $1`, store); err != nil {
		c.t.Fatal(err)
	}
	c.tx(func(ctx context.Context, tx *masterdb.Tx) error {
		return authz.Grant(ctx, tx, store, p.UserID, authz.Owner)
	})
	return p
}

func (c counter) url() string { return c.flags[1][len("--master-db-url="):] }

// cutConnections ends other connections to the database until stop is called. It ends a
// few dozen at most, so that a slow machine makes progress too.
func (c counter) cutConnections() (stop func()) {
	ctx, cancel := context.WithCancel(c.t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for range 30 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
			var ended []bool
			err := c.db.Select(ctx, &ended, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle' ORDER BY random() LIMIT 1`)
			if err != nil && ctx.Err() == nil {
				c.t.Error(err)
				return
			}
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// branch is a teller over HTTP: it spends and reads at a server. Grants are made with
// the command line.
type branch struct {
	url   *atomic.Pointer[string]
	owner client
	store string
	cfg   *config.Config
	holds *sync.Map // ids by the number of the hold
}

// grant grants credits as the operator.
func (b branch) grant(ctx context.Context, c bankCall, key string) (bankAnswer, error) {
	var out, errOut bytes.Buffer
	status := cli.Run(ctx, []string{"credits", "grant", b.store, credits.Amount(c.amount).String(), "--reason=x", "--key=" + key, "--json",
		"--data-dir=" + b.cfg.DataDir, "--master-db-url=" + b.cfg.MasterDBURL.Reveal()}, &out, &errOut)
	if status != 0 {
		return bankAnswer{}, errors.New(errOut.String())
	}
	var g cli.Granted
	err := json.Unmarshal(out.Bytes(), &g)
	return bankAnswer{
		recorded: true, seq: g.Transaction.Sequence, after: int64(g.Transaction.BalanceAfter),
		seen: true, balance: int64(g.Balance.Balance), reserved: int64(g.Balance.Reserved),
	}, err
}

func (b branch) tell(ctx context.Context, c bankCall, key string) (bankAnswer, error) {
	if c.kind == bankGrant {
		return b.grant(ctx, c, key)
	}
	req, err := b.request(ctx, c, key)
	if err != nil {
		return bankAnswer{}, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return bankAnswer{}, err
	}
	defer res.Body.Close()
	var out struct {
		Code stoa.Code
		money
		Hold struct{ ID string }
	}
	if c.kind == bankRead {
		err = json.NewDecoder(res.Body).Decode(&out.Balance)
	} else {
		err = json.NewDecoder(res.Body).Decode(&out)
	}
	switch {
	case err != nil:
		return bankAnswer{}, err
	case out.Code == stoa.InsufficientCredits, out.Code == stoa.HoldNotOpen:
		return bankAnswer{refused: true}, nil
	case res.StatusCode != http.StatusOK && res.StatusCode != http.StatusCreated:
		return bankAnswer{}, errors.New(res.Status)
	}
	if c.kind == bankHold {
		b.holds.Store(c.hold, out.Hold.ID)
	}
	return out.answer(), nil
}

// money is what an answer states about the account.
type money struct {
	Balance     struct{ Balance, Reserved credits.Amount }
	Transaction *struct {
		Sequence     int64
		BalanceAfter credits.Amount
	}
}

func (m money) answer() bankAnswer {
	a := bankAnswer{seen: true, balance: int64(m.Balance.Balance), reserved: int64(m.Balance.Reserved)}
	if t := m.Transaction; t != nil {
		a.recorded, a.seq, a.after = true, t.Sequence, int64(t.BalanceAfter)
	}
	return a
}

func (b branch) request(ctx context.Context, c bankCall, key string) (*http.Request, error) {
	method, path, body := http.MethodPost, "", object{"amount": credits.Amount(c.amount)}
	hold := func() string { id, _ := b.holds.Load(c.hold); return "/api/credits/holds/" + id.(string) }
	switch c.kind {
	case bankRead:
		method, path, body = http.MethodGet, "/api/credits/balance", nil
	case bankHold:
		path = "/api/credits/holds"
	case bankCapture:
		path = hold() + "/capture"
	case bankRelease:
		path, body = hold()+"/release", nil
	default:
		path = "/api/credits/spend"
	}
	payload, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	if body == nil {
		payload = nil
	}
	req, err := http.NewRequestWithContext(ctx, method, *b.url.Load()+path+"?storeId="+b.store, bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+b.owner.token)
	if method == http.MethodPost {
		req.Header.Set("Idempotency-Key", key)
	}
	req.GetBody = nil // the transport would repeat the call if GetBody were set
	return req, nil
}

// TestServerLinearizability checks that two servers on one PostgreSQL master act as one account
// for callers that spend, hold, capture and release at both, also when one server is
// killed meanwhile.
func TestServerLinearizability(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			servers := []*process{startProcess(t, cfg), nil}
			owner, store := register(t, serverAt(servers[0].url), "owner@example.com")
			if engine == masterdb.Postgres {
				servers[1] = startProcess(t, cfg)
			} else {
				servers = servers[:1] // their master serves one process only
			}
			holds, tellers := &sync.Map{}, []teller(nil)
			var urls []*atomic.Pointer[string]
			for _, p := range servers {
				b := branch{url: new(atomic.Pointer[string]), owner: owner, store: store, cfg: cfg, holds: holds}
				b.url.Store(&p.url)
				urls, tellers = append(urls, b.url), append(tellers, b.tell)
			}
			s := &script{t: t, kinds: []bankKind{
				bankRead, bankSpend, bankSpend, bankSpend, bankHold, bankHold, bankCapture, bankCapture, bankRelease, bankGrant,
			}}
			last := len(servers) - 1
			var killer sync.WaitGroup
			killer.Go(func() {
				testkit.Eventually(t, testkit.Timeout, "half of the calls are made", func() bool { return s.made() > linearClients*linearCalls/2 })
				servers[last].kill()
				if last == 0 {
					servers[0] = startProcess(t, cfg)
				}
				urls[last].Store(&servers[0].url)
			})
			history := s.run(tellers...)
			killer.Wait()
			s.judge(history)
		})
	}
}

func (s *script) made() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.history)
}
