package tenantdb

import (
	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// credentialTopic receives a store's id when the store's credentials change.
const credentialTopic = "stoa_credentials"

func notifyCredentials(tx *masterdb.Tx, store stoa.StoreID) error {
	return tx.Notify(credentialTopic, store.String())
}

// subscribe makes the manager reopen a store's database when this or another
// replica has changed its credentials, and compare all credentials when
// notifications may have been lost. It does nothing for a manager without a
// master, which opens only the databases that it is given.
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
		default: // a comparison is already scheduled
		}
	})
}
