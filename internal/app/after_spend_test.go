package app_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// afterSpend is how many statements the master gets within a second and a half of a lone
// spend, with the two of the call itself: two publish the event, one asks the followers of
// credits for work, and two copy the credits to the store's own database.
const afterSpend = 7

// TestWhatFollowsASpend counts those statements on the wire. What the platform does now and
// then falls into some of the tries, so that the fewest count.
func TestWhatFollowsASpend(t *testing.T) {
	t.Parallel()
	s, counter := startCounted(t)
	c, store, _ := connected(t, s, "owner@example.com")
	c = c.proven()
	c.buy(store, 1000)
	fewest, statements := 1000, ""
	for try := 0; try < 4 || try < 20 && fewest > afterSpend; try++ { // the first prepares them
		waitForQuiet(t, counter)
		c.call("POST", "/api/credits/spend", object{"amount": 1}, "X-Store-Id", store).want(http.StatusOK)
		<-time.After(1500 * time.Millisecond)
		counts, err := counter.Reset()
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, count := range counts {
			n += count
		}
		if n < fewest {
			fewest, statements = n, masterdbtest.DescribeStatements(counts)
		}
	}
	if fewest > afterSpend {
		t.Errorf("a spend and what follows it are %d statements, want at most %d:\n%s", fewest, afterSpend, statements)
	}
}

// following are parts of the statements that follow spends.
var following = []string{"event_stream", "SELECT 1 FROM webhook_endpoints", "AS follower", "spent.id", "INTO credit_copies", "-- name: JobInsert"}

// TestWhatFollowsManySpends checks that what follows spends costs a number of statements each
// second, however many there are: publications are 50 ms apart and take two statements, and
// credits are copied once a second, 500 spends with a query.
func TestWhatFollowsManySpends(t *testing.T) {
	t.Parallel()
	const callers, measured = 32, 4 * time.Second
	s, counter := startCounted(t)
	c, store, _ := connected(t, s, "owner@example.com")
	c = c.proven()
	c.buy(store, 100_000)
	waitForQuiet(t, counter)
	begun := time.Now()
	spent := make([]int, callers)
	var running sync.WaitGroup
	for i := range callers {
		running.Go(func() {
			for time.Since(begun) < measured {
				c.call("POST", "/api/credits/spend", object{"amount": 1}, "X-Store-Id", store).want(http.StatusOK)
				spent[i]++
			}
		})
	}
	running.Wait()
	<-time.After(1500 * time.Millisecond) // the last copy
	counts, err := counter.Reset()
	if err != nil {
		t.Fatal(err)
	}
	spends, followed := 0, 0
	for _, n := range spent {
		spends += n
	}
	for text, n := range counts {
		if slices.ContainsFunc(following, func(part string) bool { return strings.Contains(text, part) }) {
			followed += n
		} else {
			delete(counts, text) // of the calls, or of jobs that run after a start
		}
	}
	t.Logf("%.3f statements follow each of %d spends, %.0f a second", float64(followed)/float64(spends), spends, float64(followed)/time.Since(begun).Seconds())
	if most := int(50*time.Since(begun).Seconds()) + spends/250; followed > most {
		t.Errorf("%d statements follow %d spends, want at most %d:\n%s", followed, spends, most, masterdbtest.DescribeStatements(counts))
	}
}
