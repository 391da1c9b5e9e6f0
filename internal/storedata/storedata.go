// Package storedata contains all SQL that runs inside one tenant database: the store's
// profile, its owner, the initial rows of a new store, its catalogue, and the copies of
// its credits. It uses neither the master database nor other tenants. It does not check
// permissions: its callers do.
//
// Each query is written once, in the subset of SQL that the engines share. Three rules
// make that safe. No query sorts by a column that may be NULL. No query relies on a
// collation: columns that are looked up or unique have a binary one. A text is checked
// before it is looked up, since MySQL ignores trailing spaces.
package storedata

import (
	"strings"
	"time"
)

// now returns the time for a row: UTC in whole microseconds, which every engine
// keeps.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// marks returns n placeholders for a list: "?, ?, ?".
func marks(n int) string { return strings.TrimPrefix(strings.Repeat(", ?", n), ", ") }
