// Package ratelimittest gives tests a Redis database of their own.
package ratelimittest

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// databases is what scripts/with-servers gives its server, from 0 on.
const databases = 4096

// URL is that of a database which no other test is likely to use at the same
// time. Without a server the test is skipped or, where one was promised, fails.
func URL(t testing.TB) string {
	t.Helper()
	server := os.Getenv("STOA_TEST_REDIS_URL")
	if server == "" {
		if os.Getenv("STOA_TEST_REQUIRE_SERVERS") != "" {
			t.Fatal("STOA_TEST_REDIS_URL is not set; run the tests with scripts/with-servers")
		}
		t.Skip("no Redis at hand: STOA_TEST_REDIS_URL is not set")
	}
	return server + "/" + strconv.Itoa(rand.IntN(databases))
}
