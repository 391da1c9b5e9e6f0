package credits

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
)

// HoldState is the state of a hold.
type HoldState string

// The states of a hold. Only an open hold can change, and it changes once.
const (
	HoldOpen     HoldState = "open"
	HoldCaptured HoldState = "captured"
	HoldReleased HoldState = "released"
	HoldExpired  HoldState = "expired"
)

// Hold is an amount of credits reserved for work in progress. No other transaction can
// spend them until they are captured or released, or until the hold expires.
type Hold struct {
	ID          stoa.HoldID
	StoreID     stoa.StoreID
	Amount      Amount
	Captured    Amount // the part that was spent
	State       HoldState
	ServiceKey  *string // set, with Quantity and UnitPrice, when the hold is for a service
	Quantity    *int64
	UnitPrice   *Amount
	Description string
	UserID      *stoa.UserID
	CreatedAt   time.Time
	ExpiresAt   time.Time
	ResolvedAt  *time.Time
}

const selectHold = `
	SELECT id, store_id, amount, captured, state, service_key, quantity, unit_price, description, user_id,
		created_at, expires_at, resolved_at`

// holdRow is a hold with its idempotency keys.
type holdRow struct {
	Hold
	IdempotencyKey *string
	RequestHash    *string
	AccountAfter   *string
	ResolutionKey  *string
	ResolutionHash *string
	ResolvedAfter  *string `db:"account_after_resolution"`
}

const selectHoldRow = selectHold + `, idempotency_key, request_hash, account_after, resolution_key, resolution_hash,
	account_after_resolution`

// HoldRequest describes what to reserve, as SpendRequest does, and for how long.
type HoldRequest struct {
	SpendRequest
	ExpiresIn time.Duration // 1 second to 30 days; 0 means 15 minutes
}

// The lifetimes of holds.
const (
	defaultHold = 15 * time.Minute
	minHold     = time.Second
	maxHold     = 30 * 24 * time.Hour
)

// HoldResult is the result of a call on a hold. Transaction is nil except for a capture.
// When it is a replay, all are as they were after the first call.
type HoldResult struct {
	Hold        Hold
	Transaction *Transaction
	Balance     Balance
	Replayed    bool
}

// Hold reserves credits. It fails like Spend, and then changes nothing. The price of a
// service is the one in force now; the capture uses the same price.
func (l *Ledger) Hold(ctx context.Context, p authz.Principal, store stoa.StoreID, req HoldRequest) (out HoldResult, err error) {
	defer func() { l.metrics.holds.WithLabelValues(outcomeOf(err, "made")).Inc() }()
	if err := req.validate(); err != nil {
		return HoldResult{}, err
	}
	err = l.db.Tx(ctx, func(tx *masterdb.Tx) error {
		a, err := l.lockForSpender(ctx, tx, p, store)
		if err != nil {
			return err
		}
		out, err = l.hold(ctx, tx, a, p.UserID, req)
		return err
	})
	if err != nil {
		return HoldResult{}, err
	}
	return out, nil
}

// lockForSpender locks the account for a caller, who must have permission to spend.
func (l *Ledger) lockForSpender(ctx context.Context, tx *masterdb.Tx, p authz.Principal, store stoa.StoreID) (*account, error) {
	if _, err := authz.Check(ctx, tx, p, store, authz.SpendCredits); err != nil {
		return nil, err
	}
	return lockAccount(ctx, tx, store)
}

func (l *Ledger) hold(ctx context.Context, tx *masterdb.Tx, a *account, user stoa.UserID, req HoldRequest) (HoldResult, error) {
	hash := RequestHash("hold", req.Amount, req.ServiceKey, req.quantity(), req.Description, req.ExpiresIn)
	if req.IdempotencyKey != "" {
		first, err := findHold(ctx, tx, `idempotency_key = $2`, a.StoreID, req.IdempotencyKey)
		switch {
		case err == nil && *first.RequestHash != hash:
			return HoldResult{}, ErrIdempotencyConflict()
		case err == nil:
			then, err := a.accountAsOf(first.AccountAfter, first.CreatedAt)
			return HoldResult{Hold: first.asMade(), Balance: then, Replayed: true}, err
		case !errors.Is(err, masterdb.ErrNotFound):
			return HoldResult{}, err
		}
	}
	prices, err := pricesOf(ctx, tx, []string{req.ServiceKey}, tx.Now)
	if err != nil {
		return HoldResult{}, err
	}
	t, err := req.price(prices)
	if err != nil {
		return HoldResult{}, err
	}
	if err := a.covers(t.Amount); err != nil {
		return HoldResult{}, err
	}
	a.reserve(t.Amount)
	h := Hold{
		ID: stoa.NewID[stoa.HoldID](), StoreID: a.StoreID, Amount: t.Amount, State: HoldOpen, ServiceKey: t.ServiceKey,
		Quantity: t.Quantity, UnitPrice: t.UnitPrice, Description: req.Description, UserID: &user,
		CreatedAt: tx.Now, ExpiresAt: tx.Now.Add(req.lifetime()),
	}
	a.settle()
	if err := insertHold(ctx, tx, h, req.IdempotencyKey, hash, a.accountAfter()); err != nil {
		return HoldResult{}, err
	}
	err = l.flush(ctx, tx, a)
	return HoldResult{Hold: h, Balance: a.Balance}, err
}

func (r HoldRequest) validate() error {
	var faults stoa.Invalid
	r.check(&faults)
	if d := r.ExpiresIn; d != 0 && (d < minHold || d > maxHold) {
		faults.Add("expiresIn", "must be between %d and %d seconds", int(minHold.Seconds()), int(maxHold.Seconds()))
	}
	return faults.Err()
}

func (r HoldRequest) lifetime() time.Duration {
	if r.ExpiresIn == 0 {
		return defaultHold
	}
	return r.ExpiresIn.Truncate(time.Microsecond)
}

// asMade returns the hold as it was when it was created.
func (h holdRow) asMade() Hold {
	made := h.Hold
	made.Captured, made.State, made.ResolvedAt = 0, HoldOpen, nil
	return made
}

// insertHold stores h and, with a key, what its replays need.
func insertHold(ctx context.Context, tx *masterdb.Tx, h Hold, key, hash string, after *string) error {
	if key == "" {
		hash, after = "", nil
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO credit_holds (id, store_id, amount, captured, state, service_key, quantity, unit_price, description, user_id,
			idempotency_key, request_hash, account_after, created_at, expires_at)
		VALUES ($1, $2, $3, 0, 'open', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		h.ID, h.StoreID, h.Amount, h.ServiceKey, h.Quantity, h.UnitPrice, h.Description, h.UserID,
		nullable(key), nullable(hash), after, h.CreatedAt, h.ExpiresAt)
	return err
}

// findHold returns the store's hold that satisfies a condition on $2.
func findHold(ctx context.Context, tx *masterdb.Tx, condition string, store stoa.StoreID, arg any) (holdRow, error) {
	var h holdRow
	err := tx.Get(ctx, &h, selectHoldRow+` FROM credit_holds WHERE store_id = $1 AND `+condition, store, arg)
	return h, err
}

// CaptureRequest describes how much of a hold to spend. At most one of Amount and
// Quantity is set; neither means the whole hold. The rest of the hold is released.
type CaptureRequest struct {
	Amount         Amount
	Quantity       *int64 // of the hold's service
	IdempotencyKey string // empty: no key
}

// Capture spends a hold. It can be called once for each hold. It fails with
// hold_not_found, with hold_not_open when the hold has been captured or released or has
// expired, and with invalid_request when the request is for more than the hold contains.
func (l *Ledger) Capture(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.HoldID, req CaptureRequest) (HoldResult, error) {
	var faults stoa.Invalid
	if req.Amount < 0 || req.Quantity != nil && *req.Quantity < 1 {
		faults.Add("amount", "must be above 0; to spend nothing, release the hold")
	}
	if req.Amount > 0 && req.Quantity != nil {
		faults.Add("amount", "give either an amount or a quantity, not both")
	}
	CheckIdempotencyKey(&faults, req.IdempotencyKey)
	if err := faults.Err(); err != nil {
		return HoldResult{}, err
	}
	r := resolution{id: id, state: HoldCaptured, hash: RequestHash("capture", id, req.Amount, req.Quantity)}
	if req.IdempotencyKey != "" {
		r.key = "capture:" + req.IdempotencyKey
	}
	return l.resolve(ctx, p, store, r, func(a *account, h *Hold) (*Transaction, error) {
		t, err := req.of(*h)
		if err != nil {
			return nil, err
		}
		a.reserve(-h.Amount)
		t.HoldID, t.UserID = &h.ID, &p.UserID
		t = a.post(entry{Transaction: t})
		h.Captured = -t.Amount
		return &t, nil
	})
}

// of returns the transaction that captures h.
func (r CaptureRequest) of(h Hold) (Transaction, error) {
	var faults stoa.Invalid
	t := Transaction{Type: TypeCapture, Description: h.Description, ServiceKey: h.ServiceKey}
	amount := h.Amount
	switch {
	case r.Amount > 0 && r.Amount != h.Amount:
		amount = r.Amount // the amount need not be a multiple of the unit price
	case r.Quantity != nil && h.UnitPrice == nil:
		faults.Add("quantity", "this hold is for an amount, not for a service")
	case r.Quantity != nil:
		total, ok := h.UnitPrice.Times(*r.Quantity)
		if !ok {
			total = h.Amount + 1
		}
		amount, t.Quantity, t.UnitPrice = total, r.Quantity, h.UnitPrice
	default:
		t.Quantity, t.UnitPrice = h.Quantity, h.UnitPrice
	}
	if amount > h.Amount {
		faults.Add("amount", "is more than the %s credits that are held", h.Amount)
	}
	t.Amount = -amount
	return t, faults.Err()
}

// Release makes the credits of a hold available again. It can be called once for each
// hold. It fails as Capture does.
func (l *Ledger) Release(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.HoldID, key string) (HoldResult, error) {
	var faults stoa.Invalid
	CheckIdempotencyKey(&faults, key)
	if err := faults.Err(); err != nil {
		return HoldResult{}, err
	}
	r := resolution{id: id, state: HoldReleased, hash: RequestHash("release", id)}
	if key != "" {
		r.key = "release:" + key
	}
	return l.resolve(ctx, p, store, r, func(a *account, h *Hold) (*Transaction, error) {
		a.reserve(-h.Amount)
		return nil, nil //nolint:nilnil // a release has no transaction
	})
}

// resolution is the change that ends a hold.
type resolution struct {
	id        stoa.HoldID
	state     HoldState
	key, hash string // key is empty when the caller gave none
}

func (l *Ledger) resolve(ctx context.Context, p authz.Principal, store stoa.StoreID, r resolution, change func(*account, *Hold) (*Transaction, error)) (HoldResult, error) {
	var out HoldResult
	err := l.db.Tx(ctx, func(tx *masterdb.Tx) error {
		a, err := l.lockForSpender(ctx, tx, p, store)
		if err != nil {
			return err
		}
		h, replay, err := r.find(ctx, tx, store)
		switch {
		case err != nil:
			return err
		case replay:
			out, err = a.replayed(ctx, tx, h)
			return err
		}
		out, err = l.end(ctx, tx, a, h.Hold, r, change)
		return err
	})
	l.metrics.holds.WithLabelValues(outcomeOf(err, string(r.state))).Inc()
	if err != nil {
		return HoldResult{}, err
	}
	return out, nil
}

// end applies the change to an open hold.
func (l *Ledger) end(ctx context.Context, tx *masterdb.Tx, a *account, h Hold, r resolution, change func(*account, *Hold) (*Transaction, error)) (HoldResult, error) {
	t, err := change(a, &h)
	if err != nil {
		return HoldResult{}, err
	}
	h.State, h.ResolvedAt = r.state, &tx.Now
	a.settle() // the account for the replays is the one that the call leaves
	hash, after := r.hash, a.accountAfter()
	if r.key == "" {
		hash, after = "", nil
	}
	if _, err := tx.Exec(ctx, `
		UPDATE credit_holds SET state = $2, captured = $3, resolved_at = $4, resolution_key = $5, resolution_hash = $6,
			account_after_resolution = $7 WHERE id = $1`,
		h.ID, string(h.State), h.Captured, h.ResolvedAt, nullable(r.key), nullable(hash), after); err != nil {
		return HoldResult{}, err
	}
	err = l.flush(ctx, tx, a)
	return HoldResult{Hold: h, Transaction: t, Balance: a.Balance}, err
}

// find returns the hold to resolve. replay reports whether the key has already
// resolved it.
func (r resolution) find(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) (h holdRow, replay bool, err error) {
	if r.key != "" {
		first, err := findHold(ctx, tx, `resolution_key = $2`, store, r.key)
		switch {
		case err == nil && *first.ResolutionHash != r.hash:
			return holdRow{}, false, ErrIdempotencyConflict()
		case err == nil:
			return first, true, nil
		case !errors.Is(err, masterdb.ErrNotFound):
			return holdRow{}, false, err
		}
	}
	row, err := findHold(ctx, tx, `id = $2`, store, r.id)
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		return holdRow{}, false, errHoldNotFound()
	case err != nil:
		return holdRow{}, false, err
	case row.State != HoldOpen:
		return holdRow{}, false, stoa.Errorf(stoa.HoldNotOpen, "This hold is %s: it cannot change any more.", row.State)
	case !row.ExpiresAt.After(tx.Now):
		return holdRow{}, false, stoa.Errorf(stoa.HoldNotOpen, "This hold expired at %s: it cannot change any more.", row.ExpiresAt.Format(time.RFC3339))
	}
	return row, false, nil
}

func errHoldNotFound() error { return stoa.Errorf(stoa.HoldNotFound, "This store has no such hold.") }

// replayed returns the result of the call that ended h.
func (a *account) replayed(ctx context.Context, tx *masterdb.Tx, h holdRow) (HoldResult, error) {
	then, err := a.accountAsOf(h.ResolvedAfter, *h.ResolvedAt)
	out := HoldResult{Hold: h.Hold, Balance: then, Replayed: true}
	if err != nil || h.State != HoldCaptured {
		return out, err
	}
	out.Transaction = &Transaction{}
	err = tx.Get(ctx, out.Transaction, selectTransaction+` FROM credit_transactions WHERE hold_id = $1`, h.ID)
	return out, err
}

// HoldFilter selects holds. Its zero value selects the newest 20.
type HoldFilter struct {
	State  HoldState
	Limit  int    // 1 to 100; 0 means 20
	Cursor string // NextCursor of the previous page
}

// HoldPage is one page of holds, newest first. NextCursor is nil on the last page.
type HoldPage struct {
	Holds      []Hold
	NextCursor *string
}

// Holds lists the store's holds. It fails with invalid_request for an invalid filter and
// with store_not_found for a caller who is not a member.
func (l *Ledger) Holds(ctx context.Context, p authz.Principal, store stoa.StoreID, f HoldFilter) (HoldPage, error) {
	var faults stoa.Invalid
	query, args := selectHold+` FROM credit_holds WHERE store_id = $1`, []any{store}
	switch f.State {
	case "":
	case HoldOpen, HoldCaptured, HoldReleased, HoldExpired:
		args = append(args, string(f.State))
		query += ` AND state = $2`
	default:
		faults.Add("state", "must be open, captured, released or expired")
	}
	bounds := page.ByID[stoa.HoldID](f.Limit, f.Cursor, &faults)
	if err := faults.Err(); err != nil {
		return HoldPage{}, err
	}
	if _, err := authz.Check(ctx, l.db, p, store, authz.ReadCredits); err != nil {
		return HoldPage{}, err
	}
	args = append(args, bounds.Before, bounds.Rows())
	rows := []Hold{}
	if err := l.db.Select(ctx, &rows, query+fmt.Sprintf(` AND id < $%d ORDER BY id DESC LIMIT $%d`, len(args)-1, len(args)), args...); err != nil {
		return HoldPage{}, err
	}
	rows, next := page.Cut(rows, bounds.Limit, func(h Hold) string { return h.ID.String() })
	return HoldPage{Holds: rows, NextCursor: next}, nil
}
