package main

import (
	"math"
	"strings"
	"testing"
)

func TestCountIn(t *testing.T) {
	t.Parallel()
	metrics := "# HELP stoa_tenant_dials_total …\n" + `stoa_tenant_dials_total{outcome="failed"} 2` + "\n" + platformConnects + " 1.5e+03\n"
	if n, err := countIn(strings.NewReader(metrics), platformConnects); n != 1500 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := countIn(strings.NewReader("12\n"), ""); n != 12 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := countIn(strings.NewReader(metrics), "another"); err == nil {
		t.Error("a number that is not there was read")
	}
}

func TestHitRate(t *testing.T) {
	t.Parallel()
	r := newReport("", nil, []round{{sideStoa: {Sent: 100, Connects: 30}}, {sideStoa: {Sent: 100, Connects: 20}}, {sideStoa: {Sent: 10, Connects: 1}}})
	f := r.hitRate(sideStoa)
	if f.Value != 0.8 || f.Spread.Min != 0.7 || f.Spread.Max != 0.9 {
		t.Errorf("%s", &f)
	}
}

// TestShare checks the best possible hit rate against the draw itself.
func TestShare(t *testing.T) {
	t.Parallel()
	const n, most, draws = 1000, 100, 1_000_000
	for d, about := range map[draw]float64{zipf: 0.77, uniform: 0.1} {
		next, frequent := d.from(n, 0)(), 0
		for range draws {
			if next() < most {
				frequent++
			}
		}
		share := d.share(most, n)
		if got := float64(frequent) / draws; math.Abs(got-share) > 0.005 || math.Abs(share-about) > 0.005 {
			t.Errorf("%s: %.4f of the draws, the share is %.4f", d, got, share)
		}
	}
}
