package tenantdb

import (
	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// credentialTopic is notified with a store's id when its credentials change.
const credentialTopic = "stoa_credentials"

func notifyCredentials(tx *masterdb.Tx, store stoa.StoreID) error {
	return tx.Notify(credentialTopic, store.String())
}

// subscribe makes the manager open a store's database anew when this replica
// or another has changed its credentials, and compare them all when it may
// have missed that. A manager without a master opens only what it is given.
func (m *Manager) subscribe() {
	if m.master == nil {
		return
	}
	m.master.Subscribe(credentialTopic, func(payload string) {
		if store, err := stoa.ParseID[stoa.StoreID](payload); err == nil {
			m.Forget(store)
		}
	}, func() {
		select {
		case m.missed <- struct{}{}:
		default: // it is going to look already
		}
	})
}
