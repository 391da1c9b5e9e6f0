package tenantdb_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, master *masterdb.DB) {
		h := setupOn(t, master, tenantdb.Options{})
		store, other := h.store(t), h.store(t)
		if _, err := h.Load(t.Context(), master, store); stoa.CodeOf(err) != stoa.StorePendingDatabase {
			t.Errorf("before: %v", err)
		}
		info, err := tenantdb.ReadInfo(t.Context(), master, store)
		if info != nil || err != nil {
			t.Errorf("before: %v, %v", info, err)
		}
		version := func() (v int) {
			testkit.Must(t, master.Get(t.Context(), &v, `SELECT credential_version FROM store_databases WHERE store_id = $1`, store))
			return v
		}
		for i := range 3 {
			c := full()
			c.Password = keyring.NewSecret(marker + strconv.Itoa(i))
			h.save(t, store, c)
			got, err := h.Load(t.Context(), master, store)
			testkit.Must(t, err)
			if got != c {
				t.Errorf("got %+v, want %+v", got, c)
			}
			if version() != i+1 {
				t.Errorf("version %d after %d saves", version(), i+1)
			}
			info, err := tenantdb.ReadInfo(t.Context(), master, store)
			testkit.Must(t, err)
			want := tenantdb.Info{Kind: c.Kind, Engine: c.Engine, Host: c.Host, Port: c.Port, DatabaseName: c.Database, Status: tenantdb.StatusUnknown, CredentialVersion: int64(i + 1)}
			if *info != want {
				t.Errorf("got %+v, want %+v", *info, want)
			}
			h.tx(t, func(tx *masterdb.Tx) error {
				return errors.Join(tenantdb.RecordSchema(t.Context(), tx, store, tenantdb.Schema{Version: 14}), tenantdb.RecordHealth(t.Context(), tx, store, nil))
			})
			info, err = tenantdb.ReadInfo(t.Context(), master, store)
			testkit.Must(t, err)
			if info.SchemaVersion != 14 || info.Status != tenantdb.StatusOK || info.LastCheckedAt == nil {
				t.Errorf("recorded %+v", *info)
			}
		}

		var row string
		testkit.Must(t, master.Get(t.Context(), &row, `SELECT host || database_name || credentials FROM store_databases WHERE store_id = $1`, store))
		for _, secret := range []string{marker, "anna"} {
			if strings.Contains(row, secret) {
				t.Errorf("%q is readable in %s", secret, row)
			}
		}
		h.tx(t, func(tx *masterdb.Tx) error {
			_, err := tx.Exec(t.Context(), `INSERT INTO store_databases (store_id, kind, engine, host, port, database_name, credentials, credential_version, status, created_at, updated_at)
				SELECT $1, kind, engine, host, port, database_name, credentials, credential_version, status, created_at, updated_at
				FROM store_databases WHERE store_id = $2`, other, store)
			return err
		})
		if _, err := h.Load(t.Context(), master, other); !errors.Is(err, keyring.ErrTampered) {
			t.Errorf("a copied row opens for another store: %v", err)
		}
		if _, err := h.Acquire(t.Context(), other); err == nil {
			t.Error("a copied row can be used")
		}
	})
}

// TestSaveRefusesAnotherStoresFile checks that an embedded database belongs to
// the store whose id it has.
func TestSaveRefusesAnotherStoresFile(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	store, other := h.embedded(t), h.store(t)
	err := h.master.Tx(t.Context(), func(tx *masterdb.Tx) error {
		return h.Save(t.Context(), tx, other, credential.ManagedSQLite(store))
	})
	if err == nil {
		t.Error("saved")
	}
	if _, err := h.Load(t.Context(), h.master, other); stoa.CodeOf(err) != stoa.StorePendingDatabase {
		t.Errorf("got %v", err)
	}
}

func TestRecordHealthKeepsOnlyTheCode(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	store := h.embedded(t)
	cause := stoa.Errorf(stoa.DatabaseAuthFailed, "%s", marker).WithCause(errors.New(marker))
	h.tx(t, func(tx *masterdb.Tx) error { return tenantdb.RecordHealth(t.Context(), tx, store, cause) })
	var got string
	testkit.Must(t, h.master.Get(t.Context(), &got, `SELECT status || ' ' || last_error FROM store_databases WHERE store_id = $1`, store))
	if got != "failed database_auth_failed" {
		t.Errorf("recorded %q", got)
	}
}
