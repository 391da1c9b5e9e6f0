// Package version lets a caller change something only if it is still as it was read.
package version

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	"github.com/stoahq/stoa"
)

// Of identifies a value: equal values have equal versions. The value is one that
// encoding/json encodes.
func Of(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain values never fail
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// Match is a condition of a change: the versions that the present state may have. nil is no
// condition; an empty Match is one that nothing fulfils.
type Match []string

// Check fails with edit_conflict when the present version is none of those. Call it in the
// transaction that makes the change, under the lock that orders changes.
func (m Match) Check(present string) error {
	if m == nil || slices.Contains(m, present) {
		return nil
	}
	return stoa.Errorf(stoa.EditConflict, "This has been changed since you read it. Read it again, and repeat your change if it still applies.")
}
