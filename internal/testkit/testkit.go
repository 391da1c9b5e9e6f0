// Package testkit holds the helpers that tests of many packages share.
package testkit

import (
	"iter"
	"os"
	"testing"
)

// RequireServersEnv is the environment variable, set by `make test`, under which a test
// fails instead of skipping when something that it needs is missing.
const RequireServersEnv = "STOA_TEST_REQUIRE_SERVERS"

// Unavailable ends a test that needs something that is not here. reason says what, and how
// to get it. The test is skipped or, if RequireServersEnv is set, fails.
func Unavailable(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv(RequireServersEnv) != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// Must fails the test when err is not nil.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Collect returns the values of a sequence and the error that ended it, if one did.
func Collect[T any](rows iter.Seq2[T, error]) (list []T, err error) {
	for row, err := range rows {
		if err != nil {
			return list, err
		}
		list = append(list, row)
	}
	return list, nil
}
