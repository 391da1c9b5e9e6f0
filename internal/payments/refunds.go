package payments

import (
	"context"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
)

// share returns the part of p's credits that the first money minor units paid for,
// rounded down to a unit of credit. A reversal claws back the difference of two shares,
// so that the parts add up to the whole, whatever the number of refunds. A payment that
// does not match paid for no credits.
func (p Purchase) share(money int64) credits.Amount {
	if p.PaidMinor != nil {
		return 0
	}
	hi, lo := bits.Mul64(uint64(p.Credits), uint64(money))   //nolint:gosec // neither is negative
	quotient, _ := bits.Div64(hi, lo, uint64(p.AmountMinor)) //nolint:gosec // money is at most AmountMinor: it fits
	return credits.Amount(quotient)                          //nolint:gosec // at most Credits
}

// reversalRow is the master's row of a refund or dispute.
type reversalRow struct {
	Type          string
	ProviderRef   string
	TakenMinor    int64
	DisputedMinor int64
	Changes       int

	taken int64 // the money that is taken back according to the provider
	news  bool  // more money is taken back or disputed than before
}

// applyReversals changes the credits of p to what refunds and disputes have left of its
// payment. Money that two of them claim counts once: together they claw back no more than
// was granted. Credits of disputed money are frozen. They are unfrozen first, so that
// they are available for the claw-back.
func (s *Service) applyReversals(ctx context.Context, tx *masterdb.Tx, p *purchase, found []reversal) error {
	if len(found) == 0 {
		return nil
	}
	if p.PaymentRef == nil {
		return fmt.Errorf("purchase %s: money goes back that has not come yet", p.ID)
	}
	rows, err := reversalRows(ctx, tx, p, found)
	if err != nil {
		return err
	}
	gone, disputed := p.sums(rows)
	freeze := p.share(min(p.receivedMinor(), gone+disputed)) - p.share(gone)
	changed := freeze != p.Frozen
	if changed && p.Frozen > 0 {
		if err := s.ledger.Unfreeze(ctx, tx, p.StoreID, p.freezeRef()); err != nil {
			return err
		}
	}
	for i := range rows {
		if err := s.applyReversal(ctx, tx, p, rows, &rows[i]); err != nil {
			return err
		}
	}
	p.Frozen = freeze
	if changed && freeze > 0 {
		p.Freezes++
		if err := s.ledger.Freeze(ctx, tx, p.StoreID, p.freezeRef(), freeze); err != nil {
			return err
		}
	}
	switch {
	case gone == p.receivedMinor():
		p.Status = Refunded
	case p.PaidMinor != nil:
		p.Status = Mismatched
	default:
		p.Status = Paid
	}
	return p.endRecharge(ctx, tx, rows)
}

// freezeRef returns the reference of the freeze of p's credits. The ledger
// accepts each reference for one freeze.
func (p purchase) freezeRef() string { return fmt.Sprintf("purchase:%s:%d", p.ID, p.Freezes) }

// sums returns the money that is taken back and the money that is disputed.
func (p purchase) sums(rows []reversalRow) (gone, disputed int64) {
	for _, r := range rows {
		gone = min(p.receivedMinor(), gone+r.taken)
		disputed = min(p.receivedMinor(), disputed+r.DisputedMinor)
	}
	return gone, disputed
}

// reversalRows returns all reversals of p. Those in found have the provider's
// state.
func reversalRows(ctx context.Context, tx *masterdb.Tx, p *purchase, found []reversal) ([]reversalRow, error) {
	var rows []reversalRow
	if err := tx.Select(ctx, &rows, `
		SELECT type, provider_ref, taken_minor, disputed_minor, changes FROM purchase_reversals
		WHERE purchase_id = $1 ORDER BY provider_ref`, p.ID); err != nil {
		return nil, err
	}
	for i := range rows {
		rows[i].taken = rows[i].TakenMinor
	}
	slices.SortFunc(found, func(a, b reversal) int { return strings.Compare(a.ref, b.ref) })
	for _, r := range found {
		i := slices.IndexFunc(rows, func(row reversalRow) bool { return row.ProviderRef == r.ref })
		if i < 0 {
			_, err := tx.Exec(ctx, `
				INSERT INTO purchase_reversals (provider, provider_ref, purchase_id, type, taken_minor, disputed_minor, changes, created_at, updated_at)
				VALUES ($1, $2, $3, $4, 0, 0, 0, $5, $5)`, string(p.Provider), r.ref, p.ID, string(r.kind), tx.Now)
			if masterdb.IsUnique(err) {
				return nil, refuse("%s is about another purchase", r.ref)
			}
			if err != nil {
				return nil, err
			}
			rows = append(rows, reversalRow{Type: string(r.kind), ProviderRef: r.ref})
			i = len(rows) - 1
		}
		before := rows[i]
		rows[i].taken, rows[i].DisputedMinor = 0, 0
		switch money := r.of(p.Purchase); {
		case r.taken:
			rows[i].taken = money
		case r.open:
			rows[i].DisputedMinor = money
		}
		rows[i].news = rows[i].taken > before.taken || rows[i].DisputedMinor > before.DisputedMinor
	}
	return rows, nil
}

// applyReversal moves the credits of one reversal, records its money and writes
// its row.
func (s *Service) applyReversal(ctx context.Context, tx *masterdb.Tx, p *purchase, rows []reversalRow, r *reversalRow) error {
	if change := r.taken - r.TakenMinor; change != 0 {
		r.TakenMinor = r.taken
		r.Changes++
		var gone int64
		for _, other := range rows {
			gone = min(p.receivedMinor(), gone+other.TakenMinor)
		}
		moved := p.share(gone) - p.ClawedBack
		p.ReversedMinor, p.ClawedBack = gone, p.share(gone)
		if err := s.moveCredits(ctx, tx, p, r, moved); err != nil {
			return err
		}
		typ := r.Type
		if change < 0 {
			typ = "reinstatement"
		}
		if err := recordMoney(ctx, tx, p, typ, -change, r.changeRef()); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `
		UPDATE purchase_reversals SET taken_minor = $3, disputed_minor = $4, changes = $5, updated_at = $6
		WHERE provider = $1 AND provider_ref = $2
			AND NOT (taken_minor = $3 AND disputed_minor = $4)`,
		string(p.Provider), r.ProviderRef, r.TakenMinor, r.DisputedMinor, r.Changes, tx.Now)
	return err
}

// changeRef returns a reference that is unique for each change of a reversal:
// re_1 for the first, re_1:2 when the refund failed after all.
func (r reversalRow) changeRef() string {
	if r.Changes == 1 {
		return r.ProviderRef
	}
	return fmt.Sprintf("%s:%d", r.ProviderRef, r.Changes)
}

// moveCredits claws clawed credits back, or with a negative number reinstates
// them.
func (s *Service) moveCredits(ctx context.Context, tx *masterdb.Tx, p *purchase, r *reversalRow, clawed credits.Amount) (err error) {
	v := credits.Reversal{
		Type: credits.Type(r.Type), Amount: clawed, Reference: p.ID.String(), IdempotencyKey: r.Type + ":" + r.changeRef(),
		Description: p.title() + ": " + map[string]string{"refund": "money refunded", "dispute": "payment disputed"}[r.Type],
	}
	switch {
	case clawed > 0:
		_, err = s.ledger.ClawBack(ctx, tx, p.StoreID, v)
	case clawed < 0:
		v.Amount = -clawed
		v.Description = p.title() + ": " + map[string]string{"refund": "refund failed", "dispute": "dispute settled in favour"}[r.Type]
		_, err = s.ledger.Reinstate(ctx, tx, p.StoreID, v)
	}
	if stoa.CodeOf(err) == stoa.IdempotencyConflict {
		return refuse("%s has already moved other credits", r.ProviderRef)
	}
	return err
}

// endRecharge disables automatic recharges after a dispute, or after a recharge was
// refunded: money that was taken back must not be charged again automatically.
func (p purchase) endRecharge(ctx context.Context, tx *masterdb.Tx, rows []reversalRow) error {
	for _, r := range rows {
		reason := stopRefunded
		if r.Type == string(credits.TypeDispute) {
			reason = stopDisputed
		}
		if !r.news || reason == stopRefunded && !p.Automatic {
			continue
		}
		if err := stopRecharge(ctx, tx, p.StoreID, reason); err != nil {
			return err
		}
	}
	return nil
}
