package archive

import (
	"bytes"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestTableDroppedMeanwhile drops a table while the ones before it are archived. A snapshot
// does not keep it on a server.
func TestTableDroppedMeanwhile(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			db := migrated(t, engine)
			fillStore(t, db)
			id := newIdentity(t)
			tables := 0
			var b bytes.Buffer
			_, _, err := Write(t.Context(), db, stoa.NewID[stoa.StoreID](), &b, WriteOptions{OnTable: func(Summary) {
				if tables++; tables == 1 {
					exec(t, db, `DROP TABLE order_items`)
				}
			}}, id.Recipient())
			if engine == credential.SQLite {
				testkit.Must(t, err)
				return
			}
			if code := stoa.CodeOf(err); code != stoa.ArchiveRefused && code != stoa.TenantError {
				t.Errorf("the error is %v", err)
			}
			_, _, _, err = readAll(&b, ReadOptions{}, id)
			wantCode(t, err, stoa.ArchiveDamaged)
		})
	}
}

// TestSourceGoneMeanwhile ends the connections of a store's user while the store is archived.
func TestSourceGoneMeanwhile(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.Engines() {
		if engine == credential.SQLite {
			continue // it has no connections
		}
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			c := tenantdbtest.Create(t, engine)
			db := tenantdbtest.Open(t, c)
			_, err := db.Migrate(t.Context())
			testkit.Must(t, err)
			fillStore(t, db)
			id := newIdentity(t)
			tables := 0
			var b bytes.Buffer
			_, _, err = Write(t.Context(), db, stoa.NewID[stoa.StoreID](), &b, WriteOptions{OnTable: func(Summary) {
				if tables++; tables == 1 {
					tenantdbtest.Revoke(t, c)
				}
			}}, id.Recipient())
			if code := stoa.CodeOf(err); code != stoa.DatabaseUnreachable && code != stoa.DatabaseAuthFailed {
				t.Errorf("the error is %v", err)
			}
			_, _, _, err = readAll(&b, ReadOptions{}, id)
			wantCode(t, err, stoa.ArchiveDamaged)
		})
	}
}
