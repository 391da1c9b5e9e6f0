package masterdb_test

import (
	"os"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestTxReadCommitted checks the isolation levels of transactions on a master whose default
// is serializable.
func TestTxReadCommitted(t *testing.T) {
	t.Parallel()
	if os.Getenv(masterdbtest.PostgresEnv) == "" {
		testkit.Unavailable(t, masterdbtest.PostgresEnv+" is not set")
	}
	db := masterdbtest.Open(t, masterdbtest.SerializableURL(t))
	var level string
	read := func(tx *masterdb.Tx) error { return tx.Get(t.Context(), &level, `SHOW transaction_isolation`) }
	testkit.Must(t, db.TxReadCommitted(t.Context(), read))
	if level != "read committed" {
		t.Errorf("TxReadCommitted is %s", level)
	}
	testkit.Must(t, db.Tx(t.Context(), read))
	if level != "serializable" {
		t.Errorf("Tx is %s", level)
	}
}
