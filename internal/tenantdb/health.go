package tenantdb

import (
	"errors"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
)

// HealthCode returns the code of a failed attempt to use a store's database:
// the database_… code in the cause of tenant_unavailable, if there is one. It
// returns "" for nil.
func HealthCode(cause error) stoa.Code {
	code := stoa.CodeOf(cause)
	for e := (*stoa.Error)(nil); errors.As(cause, &e); cause = e.Cause {
		code = e.Code
	}
	return code
}

// NoProgress returns the fault of a database that answers but does not keep
// what it confirms. A retry would repeat the same work, so callers should back
// off.
func NoProgress(cause error) *stoa.Error {
	return stoa.Errorf(stoa.DatabaseNoProgress, "The database confirms changes to Stoa's tables and does not keep them, or never grants the migration lock. "+
		"Remove the triggers, rules and views on these tables that are not Stoa's, end other sessions, then try again.").WithCause(cause)
}

// HealthMessage returns the meaning of a HealthCode and the remedy for the store's owner.
// Only the code is stored, because the text of an error may be confidential.
func HealthMessage(code stoa.Code) string {
	switch code {
	case "":
		return ""
	case stoa.DatabaseUnreachable:
		return faultUnreachable.message
	case stoa.DatabaseAuthFailed:
		return "The database server refuses the stored user and password. Give the store new ones: rotate its credentials."
	case stoa.DatabasePermissionDenied:
		return faultPermission.message
	case stoa.DatabaseTLSFailed:
		return "No encrypted connection to the database server could be made. Check its certificate and the TLS settings."
	case stoa.DatabaseHostForbidden:
		return networkFault(dial.ErrHostForbidden).Message
	case stoa.DatabaseCredentialsLost:
		return credentialsLost(nil).Message
	case stoa.DatabaseVersionUnsupported:
		return "The database server is older than this platform supports. Upgrade it."
	case stoa.DatabaseSettingRefused:
		return "A setting of the database server keeps Stoa from working with it. A test of the database names it."
	case stoa.TenantError:
		return "The database server reported an error. A test of the database names it."
	case stoa.DatabaseNoProgress:
		return NoProgress(nil).Message
	case stoa.ProvisioningCrashed:
		return "The platform stopped unexpectedly while it set up this database. Connect it again, or another one."
	case stoa.DatabaseContentInvalid:
		return contentInvalid(nil).Message
	case stoa.DatabaseNotEmpty:
		return "The database holds something else than this store."
	case stoa.SupabaseProjectPaused:
		return "The Supabase project is paused. Resume it on its page at Supabase."
	case stoa.SupabaseProjectStarting:
		return "The Supabase project is starting or being restored. It takes some minutes; nothing is to be done."
	case stoa.SupabaseProjectRemoved:
		return "The Supabase project has been removed, or the connected account does not see it any more."
	case stoa.SupabaseProjectFailed:
		return "Supabase could not start the project. Look at its page at Supabase, and restore or delete it there."
	case stoa.SupabaseProjectUnknown:
		return "The database does not answer, and its Supabase project may be paused: look at the project's page at Supabase. " +
			"Once the Supabase account is connected here again, the project's state is shown."
	case stoa.InvalidRequest:
		return "The database answers, but the store is not in it."
	case stoa.TenantUnavailable:
		return unavailable(nil).Message
	default:
		return "The database could not be used. The operator's log says more."
	}
}

// Refusing returns why calls to the store are refused now, or nil. It opens no
// database.
func (m *Manager) Refusing(store stoa.StoreID) error {
	m.mu.Lock()
	b := m.breakers[store]
	m.mu.Unlock()
	if b == nil || !b.isOpen() {
		return nil
	}
	return b.refusal()
}
