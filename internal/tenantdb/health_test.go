package tenantdb_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestHealthCode(t *testing.T) {
	t.Parallel()
	fault := stoa.Errorf(stoa.DatabaseAuthFailed, "no").WithCause(errors.New("28P01"))
	shown := stoa.Errorf(stoa.TenantUnavailable, "down").WithCause(fault)
	for _, test := range []struct {
		err  error
		want stoa.Code
	}{
		{nil, ""},
		{fault, stoa.DatabaseAuthFailed},
		{shown, stoa.DatabaseAuthFailed},
		{fmt.Errorf("wrapped: %w", shown), stoa.DatabaseAuthFailed},
		{stoa.Errorf(stoa.TenantUnavailable, "down").WithCause(fmt.Errorf("open after: %w", shown)), stoa.DatabaseAuthFailed},
		{stoa.Errorf(stoa.TenantUnavailable, "busy").WithCause(errors.New("queue")), stoa.TenantUnavailable},
		{errors.New("anything"), stoa.Internal},
	} {
		if got := tenantdb.HealthCode(test.err); got != test.want {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
		if message := tenantdb.HealthMessage(test.want); (message == "") != (test.err == nil) {
			t.Errorf("%q is explained as %q", test.want, message)
		}
	}
}

// TestBreakerRemembersAndForgets checks that an open breaker reports the
// failure that opened it to the owner, and that new credentials close it,
// because the failure was about the old ones.
func TestBreakerRemembersAndForgets(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{Cooldown: time.Hour})
			good, store := tenantdbtest.Create(t, engine), h.store(t)
			bad := good
			bad.Password = keyring.NewSecret(marker)
			h.save(t, store, bad)
			if err := h.Refusing(store); err != nil {
				t.Errorf("refused before anything happened: %v", err)
			}
			for range 4 { // the last call is refused
				_, err := h.Acquire(t.Context(), store)
				checkUnavailable(t, err)
				if code := tenantdb.HealthCode(err); code != stoa.DatabaseAuthFailed {
					t.Errorf("%v is recorded as %q", err, code)
				}
			}
			if err := h.Refusing(store); tenantdb.HealthCode(err) != stoa.DatabaseAuthFailed {
				t.Errorf("refusing because of %v", err)
			}
			h.save(t, store, good)
			h.Forget(store)
			if err := h.Refusing(store); err != nil {
				t.Errorf("still refused: %v", err)
			}
			l := h.lease(t, store)
			works(t, l)
			l.Release()
		})
	}
}

// TestRecordHealthOf checks that a result for credentials that have been
// replaced meanwhile is not recorded.
func TestRecordHealthOf(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	store := h.embedded(t)
	record := func(version int64, want tenantdb.Status) {
		t.Helper()
		h.tx(t, func(tx *masterdb.Tx) error {
			return tenantdb.RecordHealthOf(t.Context(), tx, store, version, stoa.Errorf(stoa.DatabaseUnreachable, "down"))
		})
		info, err := tenantdb.ReadInfo(t.Context(), h.master, store)
		testkit.Must(t, err)
		if info.Status != want {
			t.Errorf("recorded %+v", info)
		}
	}
	h.changeWithoutNotification(t, store)
	record(1, tenantdb.StatusUnknown)
	record(2, tenantdb.StatusFailed)
}
