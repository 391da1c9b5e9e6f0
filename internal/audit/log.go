package audit

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
)

// Entry is an entry of the audit log.
type Entry struct {
	ID        stoa.EventID
	CreatedAt time.Time
	UserID    *stoa.UserID // nil: a command, which Details name, or the platform itself
	Email     *string      // of the user, unless they were deleted
	StoreID   *stoa.StoreID
	Action    string
	Outcome   Outcome
	Address   string
	RequestID string
	Details   string // a JSON object of strings
}

// Filter selects entries. A zero field selects all.
type Filter struct {
	Action   string
	Outcome  string
	UserID   stoa.UserID
	From, To *time.Time // From is included, To is not
	Limit    int        // 1 to page.MaxLimit; 0 is page.DefaultLimit
	Cursor   string     // NextCursor of the page before
}

// Page is one page of the log, newest entry first. NextCursor is nil on the last.
type Page struct {
	Entries    []Entry
	NextCursor *string
}

// ReadLog returns a page of a store's entries, for a caller who may read them.
// It fails with invalid_request.
func ReadLog(ctx context.Context, q masterdb.Querier, store stoa.StoreID, f Filter) (Page, error) {
	return f.read(ctx, q, `e.store_id = $1`, store)
}

// ReadWholeLog returns a page of the entries of all stores and users.
func ReadWholeLog(ctx context.Context, q masterdb.Querier, f Filter) (Page, error) {
	return f.read(ctx, q, `$1 = ''`, "")
}

// ReadUserLog returns up to limit entries of what a user did, newest first, whose id
// is less than before.
func ReadUserLog(ctx context.Context, q masterdb.Querier, user stoa.UserID, before stoa.EventID, limit int) ([]Entry, error) {
	var entries []Entry
	err := q.Select(ctx, &entries, `
		SELECT id, created_at, user_id, store_id, action, outcome, address, request_id, details
		FROM audit_events WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3`, user, before, limit)
	return entries, err
}

func (f Filter) read(ctx context.Context, q masterdb.Querier, where string, arg any) (Page, error) {
	var faults stoa.Invalid
	bounds := page.ByID[stoa.EventID](f.Limit, f.Cursor, &faults)
	if err := faults.Err(); err != nil {
		return Page{}, err
	}
	var entries []Entry
	err := q.Select(ctx, &entries, `
		SELECT e.id, e.created_at, e.user_id, CASE WHEN u.deleted_at IS NULL THEN u.email END AS email, e.store_id, e.action, e.outcome, e.address, e.request_id, e.details
		FROM audit_events e LEFT JOIN users u ON u.id = e.user_id
		WHERE `+where+` AND e.id < $2 AND ($3 = '' OR e.action = $3) AND ($4 = '' OR e.outcome = $4)
			AND ($5 = '' OR CAST(e.user_id AS text) = $5)
			AND e.created_at >= $6 AND e.created_at < $7
		ORDER BY e.id DESC LIMIT $8`,
		arg, bounds.Before, f.Action, f.Outcome, textOf(f.UserID), orTime(f.From, time.Time{}), orTime(f.To, endOfTime), bounds.Rows())
	if err != nil {
		return Page{}, err
	}
	entries, next := page.Cut(entries, bounds.Limit, func(e Entry) string { return e.ID.String() })
	return Page{Entries: entries, NextCursor: next}, nil
}

var endOfTime = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func orTime(t *time.Time, otherwise time.Time) time.Time {
	if t == nil {
		return otherwise
	}
	return t.UTC().Truncate(time.Microsecond)
}

// textOf returns "" for the zero id.
func textOf[K any](id stoa.ID[K]) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}
