package credits

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa/masterdb"
)

// Price is what one unit of a service costs from a moment on, until a later
// price takes its place.
type Price struct {
	ServiceKey    string
	UnitPrice     Amount
	Unit          string // what is counted, such as "item" or "MB-month"
	Description   string
	EffectiveFrom time.Time
}

// maxServiceKey bounds what is looked up, in characters.
const maxServiceKey = 100

// Prices returns the price in force now of each service, by service key.
func (l *Ledger) Prices(ctx context.Context) ([]Price, error) {
	out := []Price{}
	err := l.db.Select(ctx, &out, `
		SELECT c.service_key, c.unit_price, c.unit, c.description, c.effective_from
		FROM service_credit_costs c
		WHERE c.effective_from = (SELECT max(n.effective_from) FROM service_credit_costs n
			WHERE n.service_key = c.service_key AND n.effective_from <= $1)
		ORDER BY c.service_key`, time.Now().UTC())
	return out, err
}

// pricesOf returns the unit price at a moment of each of the services that the
// list knows then.
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
