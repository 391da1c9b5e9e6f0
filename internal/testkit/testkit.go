// Package testkit holds the helpers that tests of many packages share.
package testkit

import (
	"testing"
)

// Must fails the test when err is not nil.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
