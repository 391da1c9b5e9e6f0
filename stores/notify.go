package stores

import (
	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// ChangeTopic is notified with a store's id when its state or its hostnames
// change.
const ChangeTopic = "stoa_stores"

// notify belongs into every transaction that changes a store's state or
// hostnames. When it has committed, no replica answers by what was before.
func notify(tx *masterdb.Tx, id stoa.StoreID) error {
	return tx.Notify(ChangeTopic, id.String())
}

// changed hears of a store, from this replica or another.
func (r *Registry) changed(payload string) {
	id, err := stoa.ParseID[stoa.StoreID](payload)
	if err != nil {
		r.log.Warn("notification without a store's id", "topic", ChangeTopic, "err", err)
		return
	}
	r.resolver.forget(id)
}
