// Package ratelimittest gives tests Redis databases that they need not share.
package ratelimittest

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/stoahq/stoa/internal/testkit"
)

// databases is the number of databases on the server that scripts/with-servers starts.
const databases = 4096

// URL returns the URL of a database which no other test is likely to use at the same time.
// Without a server the test is skipped or, if STOA_TEST_REQUIRE_SERVERS is set, fails.
func URL(t testing.TB) string {
	t.Helper()
	server := os.Getenv("STOA_TEST_REDIS_URL")
	if server == "" {
		testkit.Unavailable(t, "STOA_TEST_REDIS_URL is not set; run the tests with scripts/with-servers")
	}
	return server + "/" + strconv.Itoa(rand.IntN(databases))
}
