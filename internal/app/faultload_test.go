package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/stoahq/stoa/internal/testkit"
)

const (
	frontReaders = 6
	spenders     = 4
	frontPause   = 20 * time.Millisecond // pause between two requests of one reader
	spendPause   = 10 * time.Millisecond
	frontTimeout = 5 * time.Second // a shopper does not wait longer than this
	spendRetry   = 100 * time.Millisecond
	spendLostIn  = 2 * time.Minute // a spend without an answer for this long counts as lost
)

// faultLoad is the continuous load of a platform's customers: shoppers request
// storefronts, and stores' programs spend credits. A spend is repeated with the same
// key until it is answered.
type faultLoad struct {
	f       *faultSuite
	fronts  []string // hostnames
	keyed   account  // spent with idempotency keys
	unkeyed account  // spent without idempotency keys
	http    *http.Client
	running sync.WaitGroup
	ending  chan struct{}

	mu     sync.Mutex
	counts counts
	last   time.Time         // when a spend was acknowledged
	gap    time.Duration     // the longest interval between two acknowledged spends
	paid   map[string]string // transaction ids by key
	errors map[string]int    // failed storefront requests and spends, counted by error
}

// account is a store with credits and an API key that may spend them.
type account struct{ store, key string }

// counts are the numbers of requests and results so far.
type counts struct {
	fronts, frontsFailed int // of all stores except the one at the server that the suite may freeze
	own, ownFailed       int // of that store
	spends, lost         int
	attempts, internal   int // of spends; internal is status 500
	once, onceFailed     int // spends without a key, which are never repeated
}

func newFaultLoad(f *faultSuite) *faultLoad {
	l := &faultLoad{f: f, ending: make(chan struct{}), paid: map[string]string{}, errors: map[string]int{}}
	l.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: frontReaders + spenders}}
	var accounts [2]account
	l.fronts, accounts = f.stores()
	l.keyed, l.unkeyed = accounts[0], accounts[1]
	l.warm()
	for i := range frontReaders {
		l.running.Go(func() { l.read(i) })
	}
	for i := range spenders {
		l.running.Go(func() { l.spend(i) })
	}
	f.t.Cleanup(l.stop)
	return l
}

func (l *faultLoad) stop() {
	select {
	case <-l.ending:
	default:
		close(l.ending)
	}
	l.running.Wait()
}

// pause waits for d. It reports whether the load continues.
func (l *faultLoad) pause(d time.Duration) bool {
	select {
	case <-l.ending:
		return false
	case <-time.After(d):
		return true
	}
}

// warm has each replica serve each storefront, so that it is cached.
func (l *faultLoad) warm() {
	l.f.t.Helper()
	for _, r := range l.f.replicas {
		for _, host := range l.fronts {
			testkit.Eventually(l.f.t, testkit.Timeout, "a front is warm", func() bool { return l.front("http://"+r.address, host) == "200" })
		}
	}
}

// front requests a store's storefront. It returns the status or the error.
func (l *faultLoad) front(at, host string) string {
	ctx, cancel := context.WithTimeout(context.Background(), frontTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", at+"/api/storefront/store", nil)
	if err != nil {
		return err.Error()
	}
	req.Host = host
	res, err := l.http.Do(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	var body struct {
		Slug string `json:"slug"`
		Code string `json:"code"`
	}
	if err := json.NewDecoder(res.Body).Decode(&body); res.StatusCode == http.StatusOK && (err != nil || body.Slug+".shops.localhost" != host) {
		return fmt.Sprintf("200 of %q: %v", body.Slug, err)
	}
	if body.Code != "" {
		return fmt.Sprintf("%d %s", res.StatusCode, body.Code)
	}
	return fmt.Sprint(res.StatusCode)
}

func (l *faultLoad) read(i int) {
	for n := i; l.pause(frontPause); n++ {
		store := n % len(l.fronts)
		result := l.front(l.f.proxy, l.fronts[store])
		l.mu.Lock()
		count, failed := &l.counts.fronts, &l.counts.frontsFailed
		if store == len(l.fronts)-1 {
			count, failed = &l.counts.own, &l.counts.ownFailed
		}
		if *count++; result != "200" {
			*failed++
			l.errors["front: "+result]++
		}
		l.mu.Unlock()
	}
}

// spend spends with one key after the other, and repeats each spend until it is
// answered.
func (l *faultLoad) spend(i int) {
	for n := 0; l.pause(spendPause); n++ {
		key := fmt.Sprintf("%d/%d", i, n)
		for begun := time.Now(); ; <-time.After(spendRetry) {
			transaction, result := l.pay(l.keyed, key)
			l.record(key, transaction, result)
			if transaction != "" {
				break
			}
			if time.Since(begun) > l.lostIn() {
				l.mu.Lock()
				l.counts.lost++
				l.mu.Unlock()
				break
			}
		}
	}
}

// lostIn returns after how long a spend counts as lost. The time is shorter at the end
// of a suite that has already failed.
func (l *faultLoad) lostIn() time.Duration {
	select {
	case <-l.ending:
		return 15 * time.Second
	default:
		return spendLostIn
	}
}

func (l *faultLoad) record(key, transaction, result string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.attempts++
	if transaction == "" {
		l.errors["spend: "+result]++
		if strings.HasPrefix(result, "500") {
			l.counts.internal++
		}
		return
	}
	l.counts.spends++
	l.paid[key] = transaction
	now := time.Now()
	if !l.last.IsZero() {
		l.gap = max(l.gap, now.Sub(l.last))
	}
	l.last = now
}

// spendOnce spends without keys until done is closed. A failed spend is lost, since
// neither HAProxy nor the client may repeat it.
func (l *faultLoad) spendOnce(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-time.After(spendPause):
		}
		transaction, result := l.pay(l.unkeyed, "")
		l.mu.Lock()
		l.counts.once++
		if transaction == "" {
			l.counts.onceFailed++
			l.errors["spend without a key: "+result]++
		}
		l.mu.Unlock()
	}
}

// pay makes the call once. It returns the id of the transaction, or the error.
func (l *faultLoad) pay(from account, key string) (transaction, result string) {
	ctx, cancel := context.WithTimeout(context.Background(), 35*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", l.f.proxy+"/api/credits/spend", bytes.NewReader([]byte(`{"amount":"0.01"}`)))
	if err != nil {
		return "", err.Error()
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+from.key)
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	req.GetBody = nil // the transport would repeat the call if GetBody were set
	res, err := l.http.Do(req)
	if err != nil {
		return "", strings.TrimPrefix(err.Error(), "Post ")
	}
	defer res.Body.Close()
	var answer struct {
		Transaction struct{ ID string }
		Code        string
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || res.StatusCode != http.StatusOK {
		return "", strings.TrimSpace(fmt.Sprintf("%d %s", res.StatusCode, answer.Code))
	}
	return answer.Transaction.ID, "200"
}

// begin resets the figures for a scenario and returns the current counts.
func (l *faultLoad) begin() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gap, l.errors = 0, map[string]int{}
	return l.counts
}

// since returns the counts, the longest gap and the errors since begin.
func (l *faultLoad) since(before counts) (now counts, gap time.Duration, errors map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts
	return counts{
		c.fronts - before.fronts, c.frontsFailed - before.frontsFailed, c.own - before.own, c.ownFailed - before.ownFailed,
		c.spends - before.spends, c.lost - before.lost, c.attempts - before.attempts, c.internal - before.internal,
		c.once - before.once, c.onceFailed - before.onceFailed,
	}, l.gap, l.errors
}

// acknowledged returns when the last spend was acknowledged.
func (l *faultLoad) acknowledged() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// paidSoFar returns the acknowledged spends: transaction ids by key.
func (l *faultLoad) paidSoFar() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]string, len(l.paid))
	for key, id := range l.paid {
		out[key] = id
	}
	return out
}
