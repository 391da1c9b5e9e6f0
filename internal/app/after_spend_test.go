package app_test

import (
	"net/http"
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
