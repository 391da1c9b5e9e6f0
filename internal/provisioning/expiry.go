package provisioning

import (
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
)

// Expiry returns the rule by which runs that have ended are deleted, with their events.
// The last run of a store is kept, since it shows the state of the connection.
func Expiry(keep time.Duration) masterdb.Expiry {
	return masterdb.Expiry{
		Table: "provisioning_runs", Key: []string{"id"}, Age: "finished_at", Keep: keep,
		Only:  `EXISTS (SELECT 1 FROM provisioning_runs n WHERE n.store_id = t.store_id AND (n.created_at, n.id) > (t.created_at, t.id))`,
		Batch: 100, // a run may have hundreds of events
	}
}
