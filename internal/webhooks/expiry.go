package webhooks

import (
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Expiries returns the rules by which events and what was sent are deleted. Endpoints that are
// deleted, or belong to a deleted store, follow when nothing that was sent to them is left.
func Expiries() []masterdb.Expiry {
	return []masterdb.Expiry{
		events.Expiry(),
		{Table: "event_ranges", Key: []string{"first_position"}, Age: "created_at", Keep: events.Retention},
		{Table: "webhook_attempts", Key: []string{"delivery_id", "number"}, Age: "at", Keep: DeliveryRetention},
		{Table: "webhook_deliveries", Key: []string{"id"}, Age: "created_at", Keep: DeliveryRetention},
		{
			Table: "webhook_endpoints", Key: []string{"id"}, Age: "updated_at", Keep: DeliveryRetention,
			Only: `(t.state = 'deleted' OR EXISTS (SELECT 1 FROM stores s WHERE s.id = t.store_id AND s.status = 'deleted'))
				AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.endpoint_id = t.id)`,
		},
	}
}
