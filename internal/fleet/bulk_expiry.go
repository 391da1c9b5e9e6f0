package fleet

import (
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
)

// BulkActionExpiry returns the rule for the records of bulk actions.
func BulkActionExpiry(keep time.Duration) masterdb.Expiry {
	return masterdb.Expiry{Table: "bulk_actions", Key: []string{"id"}, Age: "created_at", Keep: keep}
}
