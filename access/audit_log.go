package access

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// ReadAuditLog returns a page of the store's audit log. It fails with
// invalid_request, and as Check does.
func ReadAuditLog(ctx context.Context, h masterdb.Handle, p Principal, store stoa.StoreID, f Filter) (Page, error) {
	if _, err := Check(ctx, h, p, store, ReadAudit); err != nil {
		return Page{}, err
	}
	return ReadLog(ctx, h, store, f)
}

// ReadPlatformLog is ReadAuditLog over all stores and users, for operators of
// the platform.
func ReadPlatformLog(ctx context.Context, h masterdb.Handle, p Principal, f Filter) (Page, error) {
	if err := CheckOperator(ctx, h, p, "audit"); err != nil {
		return Page{}, err
	}
	return ReadWholeLog(ctx, h, f)
}
