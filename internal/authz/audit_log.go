package authz

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/masterdb"
)

// ReadAuditLog returns a page of the store's audit log. It fails with
// invalid_request, and as Check does.
func ReadAuditLog(ctx context.Context, h masterdb.Handle, p Principal, store stoa.StoreID, f audit.Filter) (audit.Page, error) {
	if _, err := Check(ctx, h, p, store, ReadAudit); err != nil {
		return audit.Page{}, err
	}
	return audit.ReadLog(ctx, h, store, f)
}

// ReadPlatformLog returns a page of the audit log of all stores and users, for
// operators of the platform. It fails as ReadAuditLog does.
func ReadPlatformLog(ctx context.Context, h masterdb.Handle, p Principal, f audit.Filter) (audit.Page, error) {
	if err := CheckOperator(ctx, h, p, "audit"); err != nil {
		return audit.Page{}, err
	}
	return audit.ReadWholeLog(ctx, h, f)
}
