package credits

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"
	"unicode"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
)

// Price is the price of one unit of a service from a moment on, until a later price
// replaces it. A unit price has at most 4 decimals and quantities are whole, so the cost
// of a spend is exact and is never rounded.
type Price struct {
	ServiceKey    string
	UnitPrice     Amount // 0: the service is free
	Unit          string // what is counted, such as "item" or "MB-month"
	Description   string
	EffectiveFrom time.Time
}

// The maximum lengths of a price's texts, in characters.
const (
	maxServiceKey = 100
	maxUnit       = 50
)

const selectPrice = `SELECT c.service_key, c.unit_price, c.unit, c.description, c.effective_from FROM service_credit_costs c`

// Prices returns the price of each service in force at a moment, by service key.
func (l *Ledger) Prices(ctx context.Context, at time.Time) ([]Price, error) {
	out := []Price{}
	err := l.db.Select(ctx, &out, selectPrice+`
		WHERE c.effective_from = (SELECT max(n.effective_from) FROM service_credit_costs n
			WHERE n.service_key = c.service_key AND n.effective_from <= $1)
		ORDER BY c.service_key`, at.UTC())
	return out, err
}

// PricePage is a page of all prices.
type PricePage struct {
	Prices     []ListedPrice
	NextCursor *string
}

// ListedPrice is a price with what followed it.
type ListedPrice struct {
	Price
	Replaced bool // a later price of the service has begun
}

// PriceHistory returns a page of past, present and planned prices, by service key and then
// from the latest to the earliest. It fails with invalid_request.
func (l *Ledger) PriceHistory(ctx context.Context, limit int, cursor string) (PricePage, error) {
	var faults stoa.Invalid
	bounds := page.ByID[stoa.EventID](limit, "", &faults)
	after := priceKey{}
	if cursor != "" && !after.decode(cursor) {
		faults.Add("cursor", "is not a cursor of this list; begin again without one")
	}
	if err := faults.Err(); err != nil {
		return PricePage{}, err
	}
	list := []ListedPrice{}
	err := l.db.Select(ctx, &list, selectListedPrice, after.service, after.from, l.db.Now(), bounds.Rows())
	if err != nil {
		return PricePage{}, err
	}
	var out PricePage
	out.Prices, out.NextCursor = page.Cut(list, bounds.Limit, func(p ListedPrice) string { return priceKey{p.ServiceKey, p.EffectiveFrom}.encode() })
	return out, nil
}

const selectListedPrice = `SELECT c.service_key, c.unit_price, c.unit, c.description, c.effective_from,
		EXISTS (SELECT 1 FROM service_credit_costs n WHERE n.service_key = c.service_key AND n.effective_from > c.effective_from AND n.effective_from <= $3) AS replaced
	FROM service_credit_costs c
	WHERE c.service_key >= $1 AND (c.service_key > $1 OR c.effective_from < $2)
	ORDER BY c.service_key, c.effective_from DESC LIMIT $4`

// priceKey is where a page of prices begins: after the price of a service from a moment on.
type priceKey struct {
	service string
	from    time.Time
}

func (k priceKey) encode() string {
	return base64.RawURLEncoding.EncodeToString([]byte(k.from.UTC().Format(time.RFC3339Nano) + " " + k.service))
}

// decode accepts only what encode returns.
func (k *priceKey) decode(cursor string) bool {
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	from, service, ok := strings.Cut(string(text), " ")
	if err != nil || !ok || !isServiceKey(service) {
		return false
	}
	k.service = service
	k.from, err = time.Parse(time.RFC3339Nano, from)
	return err == nil && k.encode() == cursor
}

// SetPrice adds a price to the list and returns it. It never changes an earlier price,
// since spends were made at it. A zero EffectiveFrom means now. An empty Unit or
// Description means that of the service's previous price. It checks no permission: it is
// for the operator. by is recorded in the audit log.
//
// When the same price is already in force at that moment, nothing is added: added is
// false, and the returned price is the existing one. It fails with invalid_request, also
// for a moment that is past or has a price already.
func (l *Ledger) SetPrice(ctx context.Context, by authz.Principal, p Price) (out Price, added bool, err error) {
	err = l.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if out, added, err = setPrice(ctx, tx, p); err != nil || !added {
			return err
		}
		return audit.Record(ctx, tx, by, audit.Event{Action: audit.PriceSet, Details: map[string]string{
			"service": out.ServiceKey, "price": out.UnitPrice.String(), "unit": out.Unit, "from": out.EffectiveFrom.Format(time.RFC3339Nano),
		}})
	})
	if masterdb.IsUnique(err) { // another caller has set the price concurrently
		err = priceTaken(p.EffectiveFrom)
	}
	return out, added, err
}

func setPrice(ctx context.Context, tx *masterdb.Tx, p Price) (Price, bool, error) {
	p.EffectiveFrom = p.EffectiveFrom.UTC().Truncate(time.Microsecond)
	if p.EffectiveFrom.IsZero() {
		p.EffectiveFrom = tx.Now
	}
	before, err := priceAt(ctx, tx, p.ServiceKey, p.EffectiveFrom)
	if err != nil {
		return Price{}, false, err
	}
	if before != nil {
		p.Unit, p.Description = cmp.Or(p.Unit, before.Unit), cmp.Or(p.Description, before.Description)
	}
	if err := p.validate(tx.Now); err != nil {
		return Price{}, false, err
	}
	if before != nil {
		since := before.EffectiveFrom
		before.EffectiveFrom = p.EffectiveFrom
		if *before == p {
			p.EffectiveFrom = since
			return p, false, nil
		}
		if since.Equal(p.EffectiveFrom) {
			return Price{}, false, priceTaken(since)
		}
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO service_credit_costs (service_key, effective_from, unit_price, unit, description) VALUES ($1, $2, $3, $4, $5)`,
		p.ServiceKey, p.EffectiveFrom, p.UnitPrice, p.Unit, p.Description)
	return p, err == nil, err
}

// priceAt returns the price of the service in force at a moment, or nil if there is none.
func priceAt(ctx context.Context, q masterdb.Querier, service string, at time.Time) (*Price, error) {
	if !storable(service, maxServiceKey) {
		return nil, nil //nolint:nilnil // documented: no price
	}
	var p Price
	err := q.Get(ctx, &p, selectPrice+` WHERE c.service_key = $1 AND c.effective_from <= $2
		ORDER BY c.effective_from DESC LIMIT 1`, service, at)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil, nil //nolint:nilnil // documented: no price
	}
	p.EffectiveFrom = p.EffectiveFrom.UTC()
	return &p, err
}

func priceTaken(at time.Time) error {
	var faults stoa.Invalid
	faults.Add("from", "this service has another price from %s on already; choose a later moment", at.Format(time.RFC3339Nano))
	return faults.Err()
}

func (p Price) validate(now time.Time) error {
	var faults stoa.Invalid
	if !isServiceKey(p.ServiceKey) {
		faults.Add("service", "must be 1 to %d lower-case letters, digits, '_', '-' or '.'", maxServiceKey)
	}
	if p.UnitPrice < 0 {
		faults.Add("price", "must not be below 0")
	}
	if !isLine(p.Unit, maxUnit) {
		faults.Add("unit", "must be one line of 1 to %d characters, such as \"item\"", maxUnit)
	}
	if !isLine(p.Description, maxDescription) {
		faults.Add("description", "must be one line of 1 to %d characters", maxDescription)
	}
	if p.EffectiveFrom.Before(now) {
		faults.Add("from", "is past: a price cannot change what has been spent already")
	}
	return faults.Err()
}

func isServiceKey(s string) bool {
	return s != "" && len(s) <= maxServiceKey && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-.") == ""
}

// isLine reports whether s can be shown in a table.
func isLine(s string, limit int) bool {
	return storable(s, limit) && strings.TrimSpace(s) != "" && !strings.ContainsFunc(s, unicode.IsControl)
}

// pricesOf returns the unit price in force at a moment for each of the services that has
// one.
func pricesOf(ctx context.Context, q masterdb.Querier, services []string, at time.Time) (map[string]Amount, error) {
	prices := map[string]Amount{}
	for _, service := range services {
		if _, known := prices[service]; known || service == "" {
			continue
		}
		var unit Amount
		err := q.Get(ctx, &unit, `
			SELECT unit_price FROM service_credit_costs WHERE service_key = $1 AND effective_from <= $2
			ORDER BY effective_from DESC LIMIT 1`, service, at)
		if errors.Is(err, masterdb.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		prices[service] = unit
	}
	return prices, nil
}
