// Package shop is all SQL that runs inside one tenant database: the store's
// profile, its owner, what a new shop starts with, and its catalogue. It
// knows nothing of the master database or of other tenants, and it does not
// ask who may do what: its callers have decided that.
//
// Queries are written once, in the subset the engines share. Three habits
// make that safe. Nothing sorts by a column that may be NULL. Nothing relies
// on a collation: what is looked up or unique has a binary one. And a text is
// checked before it is looked up, since MySQL ignores spaces at the end.
package shop

import (
	"strings"
	"time"
)

// now is the time a row is written with: UTC in whole microseconds, which is
// what every engine keeps.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// marks returns n placeholders for a list: "?, ?, ?".
func marks(n int) string { return strings.TrimPrefix(strings.Repeat(", ?", n), ", ") }
