package audit

import (
	"context"
	"fmt"
	"iter"
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
	return f.read(ctx, q, `e.store_id = $1`, `e.id DESC`, store)
}

// ReadWholeLog returns a page of the entries of all stores and users.
func ReadWholeLog(ctx context.Context, q masterdb.Querier, f Filter) (Page, error) {
	if f.Action != "" {
		// The index by action holds the page together. With "=" PostgreSQL may read the newest entries
		// of all actions instead, and finds few of a common action that has become rare.
		action := f.Action
		f.Action = ""
		return f.read(ctx, q, `e.action BETWEEN $1 AND $1`, `e.action DESC, e.id DESC`, action)
	}
	return f.read(ctx, q, `$1 = ''`, `e.id DESC`, "")
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

// All iterates over the entries of p and of all pages after it, which read returns. f is
// the filter of p. An error of read is the last element.
func (p Page) All(f Filter, read func(Filter) (Page, error)) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for {
			for _, e := range p.Entries {
				if !yield(e, nil) {
					return
				}
			}
			if p.NextCursor == nil {
				return
			}
			f.Cursor = *p.NextCursor
			var err error
			if p, err = read(f); err != nil {
				yield(Entry{}, err)
				return
			}
		}
	}
}

// ColumnNames are the names of an entry's columns in a table.
var ColumnNames = []string{"id", "createdAt", "action", "outcome", "userId", "email", "storeId", "address", "requestId", "details"}

// Columns returns the entry as a row of a table, with escape applied to texts that a
// user may have chosen.
func (e Entry) Columns(escape func(string) string) []string {
	row := []string{
		e.ID.String(), e.CreatedAt.UTC().Format(time.RFC3339Nano), e.Action, string(e.Outcome), "", "", "",
		escape(e.Address), escape(e.RequestID), escape(e.Details),
	}
	if e.UserID != nil {
		row[4] = e.UserID.String()
	}
	if e.Email != nil {
		row[5] = escape(*e.Email)
	}
	if e.StoreID != nil {
		row[6] = e.StoreID.String()
	}
	return row
}

// read returns the page of the entries for which where holds, with its argument, in an order
// that is the newest first.
func (f Filter) read(ctx context.Context, q masterdb.Querier, where, order string, arg any) (Page, error) {
	var faults stoa.Invalid
	bounds := page.ByID[stoa.EventID](f.Limit, f.Cursor, &faults)
	if err := faults.Err(); err != nil {
		return Page{}, err
	}
	args := []any{arg, bounds.Before, bounds.Rows()}
	// Only conditions that restrict the selection: an index serves each of them. PostgreSQL takes
	// a period for a short one, so a period of all time would make it choose the index of times.
	add := func(condition string, value any) {
		args = append(args, value)
		where += fmt.Sprintf(" AND %s $%d", condition, len(args))
	}
	if f.Action != "" {
		add("e.action =", f.Action)
	}
	if f.Outcome != "" {
		add("e.outcome =", f.Outcome)
	}
	if !f.UserID.IsZero() {
		add("e.user_id =", f.UserID)
	}
	if f.From != nil {
		add("e.created_at >=", f.From.UTC().Truncate(time.Microsecond))
	}
	if f.To != nil {
		add("e.created_at <", f.To.UTC().Truncate(time.Microsecond))
	}
	var entries []Entry
	err := q.Select(ctx, &entries, `
		SELECT e.id, e.created_at, e.user_id, CASE WHEN u.deleted_at IS NULL THEN u.email END AS email, e.store_id, e.action, e.outcome, e.address, e.request_id, e.details
		FROM audit_events e LEFT JOIN users u ON u.id = e.user_id
		WHERE `+where+` AND e.id < $2
		ORDER BY `+order+` LIMIT $3`, args...)
	if err != nil {
		return Page{}, err
	}
	entries, next := page.Cut(entries, bounds.Limit, func(e Entry) string { return e.ID.String() })
	return Page{Entries: entries, NextCursor: next}, nil
}
