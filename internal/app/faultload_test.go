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
)

const (
	frontReaders = 6
	spenders     = 4
	frontPause   = 20 * time.Millisecond // between two requests of one reader
	spendPause   = 10 * time.Millisecond
	frontTimeout = 5 * time.Second // a shopper does not wait for longer
	spendRetry   = 100 * time.Millisecond
	spendLostIn  = 2 * time.Minute // a spend without an answer for so long is lost
)

// faultLoad is what a platform's customers do all the while: shoppers look at
// fronts, and stores' software spends credits. It repeats a spend with the same
// key until it is answered.
type faultLoad struct {
	f       *faultSuite
	fronts  []string // hostnames
	keyed   account  // spent with idempotency keys
	unkeyed account  // spent without
	http    *http.Client
	running sync.WaitGroup
	ending  chan struct{}

	mu     sync.Mutex
	counts counts
	last   time.Time         // when a spend was acknowledged
	gap    time.Duration     // the longest between two of them
	paid   map[string]string // transactions by key
	errors map[string]int    // of fronts and of spends, by what happened
}

// account is a store with credits and an API key that may spend them.
type account struct{ store, key string }

// counts are what has happened so far.
type counts struct {
	fronts, frontsFailed int // but for the store at the server that the suite may freeze
	own, ownFailed       int // of that store
	spends, lost         int
	attempts, internal   int // of spends; internal is status 500
	once, onceFailed     int // spends without a key, which nobody repeats
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

// pause reports whether to go on.
func (l *faultLoad) pause(d time.Duration) bool {
	select {
	case <-l.ending:
		return false
	case <-time.After(d):
		return true
	}
}

// warm has each replica serve each front.
func (l *faultLoad) warm() {
	l.f.t.Helper()
	for _, r := range l.f.replicas {
		for _, host := range l.fronts {
			eventually(l.f.t, "a front is warm", func() bool { return l.front("http://"+r.address, host) == "200" })
		}
	}
}

// front asks for a store's front and returns the status or what went wrong.
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
	if err := json.NewDecoder(res.Body).Decode(&body); res.StatusCode == http.StatusOK && (err != nil || body.Slug+".localhost" != host) {
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

// spend pays until there is an answer, one key after the other.
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

// lostIn is less at the end of a suite that has failed in between.
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

// spendOnce pays without keys until done is closed: what fails then is lost, since
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

// pay makes the call once and returns the id of the transaction, or what went
// wrong.
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
	req.GetBody = nil // with it the transport would repeat the call by itself
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

// begin starts a scenario's figures.
func (l *faultLoad) begin() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gap, l.errors = 0, map[string]int{}
	return l.counts
}

// since returns what has happened since begin.
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

// acknowledged returns when the last spend was.
func (l *faultLoad) acknowledged() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// paidSoFar are the acknowledged spends.
func (l *faultLoad) paidSoFar() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]string, len(l.paid))
	for key, id := range l.paid {
		out[key] = id
	}
	return out
}
