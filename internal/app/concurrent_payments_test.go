package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
)

// payers spend a store's credits continuously and concurrently. They repeat a failed
// call with the same key until it is answered, at the server that is current at that
// time.
type payers struct {
	t     *testing.T
	owner client
	store string
	cfg   *config.Config
	began credits.Amount

	url    atomic.Pointer[string] // of the server to call
	ending chan struct{}
	all    sync.WaitGroup
	doubts atomic.Int64 // calls whose effect was unknown

	mu   sync.Mutex
	paid map[string]payment // acknowledged spends by key
}

// payment is an acknowledged spend.
type payment struct {
	ID     string
	Amount credits.Amount
}

const payerCount = 6

// newPayers creates an account with credits at the server.
func newPayers(t *testing.T, cfg *config.Config, url string) *payers {
	t.Helper()
	p := &payers{t: t, cfg: cfg, began: 1_000_000 * credits.Credit, ending: make(chan struct{}), paid: map[string]payment{}}
	p.url.Store(&url)
	p.owner, p.store = register(t, serverAt(url), "payer@example.com")
	if status, out := p.command("credits", "grant", p.store, p.began.String(), "--reason=x"); status != 0 {
		t.Fatal(out)
	}
	return p
}

func (p *payers) command(args ...string) (status int, out string) {
	p.t.Helper()
	status, out, errOut := command(p.t, append(args, "--data-dir="+p.cfg.DataDir, "--master-db-url="+p.cfg.MasterDBURL.Reveal())...)
	return status, out + errOut
}

func (p *payers) start() {
	for i := range payerCount {
		p.all.Go(func() {
			for n := 0; !p.over(); n++ {
				p.pay(fmt.Sprintf("%d/%d", i, n), credits.Amount(1+rand.N(30_000)))
			}
		})
	}
	p.t.Cleanup(p.stop)
}

// stop stops the payers and waits for the answers to their calls in progress.
func (p *payers) stop() {
	if !p.over() {
		close(p.ending)
	}
	p.all.Wait()
}

func (p *payers) over() bool {
	select {
	case <-p.ending:
		return true
	default:
		return false
	}
}

// pay repeats a spend until there is an answer. Of all answered spends it repeats one
// in ten once more.
func (p *payers) pay(key string, amount credits.Amount) {
	deadline := time.Now().Add(time.Minute)
	for !p.ask(key, amount) {
		if time.Now().After(deadline) {
			p.t.Errorf("%s: no answer in a minute", key)
			return
		}
		<-time.After(5 * time.Millisecond) // the server may be down
	}
	if rand.N(10) == 0 {
		p.ask(key, amount)
	}
}

// ask makes the call once. It reports whether there was an answer.
func (p *payers) ask(key string, amount credits.Amount) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	body, _ := json.Marshal(object{"amount": amount})
	req, err := http.NewRequestWithContext(ctx, "POST", *p.url.Load()+"/api/credits/spend", bytes.NewReader(body))
	if err != nil {
		return false
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+p.owner.token)
	req.Header.Set("Idempotency-Key", key)
	req.GetBody = nil // the transport would repeat the call if GetBody were set
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		if !errors.Is(err, syscall.ECONNREFUSED) {
			p.doubts.Add(1)
		}
		return false
	}
	defer res.Body.Close()
	var answer struct {
		Transaction struct {
			ID     string
			Amount credits.Amount
		}
	}
	switch err := json.NewDecoder(res.Body).Decode(&answer); {
	case err != nil || res.StatusCode >= http.StatusInternalServerError:
		p.doubts.Add(1)
		return false
	case res.StatusCode == http.StatusTooManyRequests:
		return false
	case res.StatusCode != http.StatusOK:
		p.t.Errorf("%s: status %d", key, res.StatusCode)
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := payment{answer.Transaction.ID, answer.Transaction.Amount}
	if before, ok := p.paid[key]; ok && before != now || now.Amount != -amount {
		p.t.Errorf("%s of %s: answered %v, before %v", key, amount, now, before)
	}
	p.paid[key] = now
	return true
}

func (p *payers) acknowledged() map[string]payment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.paid)
}

// verify checks that the ledger is consistent and contains all acknowledged spends.
func (p *payers) verify(db *masterdb.DB) {
	p.t.Helper()
	acknowledged := p.acknowledged()
	if status, out := p.command("credits", "verify"); status != 0 {
		p.t.Fatalf("status %d: %s", status, out)
	}
	rows, _ := p.rows(db)
	for key, want := range acknowledged {
		if rows[key] != want {
			p.t.Fatalf("%s was acknowledged as %v and is recorded as %v", key, want, rows[key])
		}
	}
}

// settle stops the payers and compares all acknowledged spends with the ledger.
func (p *payers) settle(db *masterdb.DB) {
	p.t.Helper()
	p.stop()
	p.verify(db)
	rows, sum := p.rows(db)
	if len(rows) != len(p.paid) {
		p.t.Errorf("%d spends are recorded, %d were acknowledged", len(rows), len(p.paid))
	}
	id, err := stoa.ParseID[stoa.StoreID](p.store)
	if err != nil {
		p.t.Fatal(err)
	}
	if b := (counter{t: p.t, db: db, ledger: credits.New(db)}).balance(id); b.Balance != p.began+sum || b.LifetimeSpent != -sum {
		p.t.Errorf("the balance is %s and %s are spent; it began with %s, and %s were acknowledged", b.Balance, b.LifetimeSpent, p.began, sum)
	}
	p.t.Logf("%d spends acknowledged, %d calls in doubt", len(p.paid), p.doubts.Load())
}

// rows returns the recorded spends by key, and their sum.
func (p *payers) rows(db *masterdb.DB) (map[string]payment, credits.Amount) {
	p.t.Helper()
	var rows []struct {
		payment
		Key string
	}
	if err := db.Select(p.t.Context(), &rows, `SELECT CAST(id AS text) AS id, amount, idempotency_key AS key FROM credit_transactions
		WHERE store_id = $1 AND type = 'spend'`, p.store); err != nil {
		p.t.Fatal(err)
	}
	out, sum := map[string]payment{}, credits.Amount(0)
	for _, r := range rows {
		key := strings.TrimPrefix(r.Key, "spend:")
		if _, twice := out[key]; twice {
			p.t.Errorf("%s is recorded twice", key)
		}
		out[key] = r.payment
		sum += r.Amount
	}
	return out, sum
}
