package moves

import (
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
)

// maxNamed limits the tables that a message names.
const maxNamed = 10

// checkHead fails for a database with tables or columns that a move would not carry.
func checkHead(h archive.Head) error {
	if len(h.NotIncluded) == 0 {
		return nil
	}
	names := h.NotIncluded[:min(maxNamed, len(h.NotIncluded))]
	more := ""
	if len(h.NotIncluded) > maxNamed || h.Omitted > 0 {
		more = " and more"
	}
	return stoa.Errorf(stoa.MoveRefused, "The store's database has tables or columns that Stoa did not create, and a move does not carry them: %s%s. Move them elsewhere yourself, then try again.",
		strings.Join(names, ", "), more)
}
