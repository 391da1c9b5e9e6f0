package main

import (
	"math"
	"testing"
)

func TestFit(t *testing.T) {
	t.Parallel()
	stores := []float64{1000, 10_000, 100_000}
	for _, want := range []line{{100, 0.25}, {5, 0}, {0, 3}} {
		var values []float64
		for _, n := range stores {
			values = append(values, want.Base+want.PerStore*n)
		}
		got := fit(stores, values)
		if math.Abs(got.Base-want.Base) > 1e-3 || math.Abs(got.PerStore-want.PerStore) > 1e-6 {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

func TestSuperlinear(t *testing.T) {
	t.Parallel()
	stores := []float64{1000, 10_000, 100_000}
	for name, test := range map[string]struct {
		values []float64
		want   bool
	}{
		"constant": {[]float64{7, 7, 7}, false}, "linear": {[]float64{10, 100, 1000}, false}, "with a base": {[]float64{101, 110, 200}, false},
		"square": {[]float64{1, 100, 10_000}, true}, "falls, then grows": {[]float64{300, 100, 4000}, true}, "within the noise": {[]float64{0.01, 0.1, 10}, false},
		"two sizes": {[]float64{1, 1000}, false},
	} {
		if got := superlinear(stores, test.values, 20); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestProjectedTable checks the arithmetic of one table: bytes of a row, rows of a store and
// writes of the operations.
func TestProjectedTable(t *testing.T) {
	t.Parallel()
	a := assumptions{Stores: 1e6, Spends: 100, LedgerYears: 2}
	measured := &scaleSize{
		Stores: 100, Tables: []table{{Name: "credit_transactions", Bytes: 400_000, Rows: 1000}, {Name: "goose_db_version", Bytes: 8192, Rows: 1}},
		Costs: map[string]*opCosts{opSpend: {Writes: map[string]writes{"credit_transactions": {Inserts: 1}}}},
	}
	got := a.tables(measured)
	if len(got) != 1 || got[0].BytesPerRow != 400 || math.Abs(got[0].RowsPerStore-100*day*365*2/1e6) > 1e-6 || got[0].Inserts != 100 {
		t.Errorf("%+v", got)
	}
}
