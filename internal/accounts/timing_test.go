package accounts

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/passwordhash"
)

// TestLoginTakesAsLong checks that a login takes the same time with a wrong password
// and with an address without an account. It compares no time with a limit: it ranks
// 400 attempts of each together, in random order (Mann-Whitney test). A busy machine
// slows both, so it can hide a difference but not create one. Without a difference, one
// run in ten thousand would fail by chance. Hashing costs less here than in production,
// but takes most of the time of an attempt, as it does there: if it were skipped for an
// unknown address, the two would differ in nearly every pair.
func TestLoginTakesAsLong(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		a.passwords = newHasher(passwordhash.Argon2Cost{Memory: 1024, Passes: 1, Threads: 1})
		register(t, a)
		const tries, unlikely = 400, 1e-4
		var order []string
		for range tries {
			order = append(order, "owner@example.com", "other@example.com")
		}
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		times := map[string][]float64{}
		for _, email := range order {
			a.opts.Limits = newMemoryLimiter() // resets the limits, so that each attempt is the first
			began := time.Now()
			_, err := a.Login(t.Context(), email, keyring.NewSecret("another password"), Client{})
			times[email] = append(times[email], time.Since(began).Seconds())
			wantCode(t, err, stoa.InvalidCredentials)
		}
		known, unknown := times["owner@example.com"], times["other@example.com"]
		p := mannWhitney(known, unknown)
		t.Logf("medians %.3f and %.3f ms, p = %.3g", 1000*median(known), 1000*median(unknown), p)
		if p < unlikely {
			t.Errorf("wrong password and unknown address differ: medians %.3f and %.3f ms, p = %.3g", 1000*median(known), 1000*median(unknown), p)
		}
	})
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}

// mannWhitney returns the probability that two samples differ at least as much as x and
// y do if both come from one distribution. The test is two-sided. It uses the normal
// approximation with the correction for ties, which is accurate from 20 values on.
func mannWhitney(x, y []float64) float64 {
	type value struct {
		v   float64
		ofX bool
	}
	var all []value
	for _, v := range x {
		all = append(all, value{v: v, ofX: true})
	}
	for _, v := range y {
		all = append(all, value{v: v})
	}
	slices.SortFunc(all, func(a, b value) int { return cmp.Compare(a.v, b.v) })
	n, nx, ny := float64(len(all)), float64(len(x)), float64(len(y))
	rankSum, ties := 0.0, 0.0
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].v == all[i].v {
			j++
		}
		for k := i; k < j; k++ {
			if all[k].ofX {
				rankSum += float64(i+j+1) / 2 // ranks begin at 1; equal values share theirs
			}
		}
		t := float64(j - i)
		ties += t*t*t - t
		i = j
	}
	u := rankSum - nx*(nx+1)/2
	sigma := math.Sqrt(nx * ny / 12 * (n + 1 - ties/(n*(n-1))))
	if sigma == 0 {
		return 1 // all values are equal
	}
	return math.Erfc(math.Abs(u-nx*ny/2) / sigma / math.Sqrt2)
}

// TestMannWhitney checks the statistics against known results: an example with ties,
// samples of one distribution, and clear differences.
func TestMannWhitney(t *testing.T) {
	t.Parallel()
	// Calculated by hand: U = 5, its mean is 25/2 and, with three 2 and two 4, its
	// variance 25/12·(11 - (24+6)/90), so z = 1.591.
	if p := mannWhitney([]float64{1, 2, 2, 3, 5}, []float64{2, 4, 4, 6, 7}); math.Abs(p-0.11161) > 0.00001 {
		t.Errorf("the example gives %.5f", p)
	}
	source := rand.New(rand.NewPCG(1, 2))
	sample := func(shift float64) []float64 {
		out := make([]float64, 400)
		for i := range out {
			out[i] = source.ExpFloat64() + shift // skewed, as response times are
		}
		return out
	}
	below := 0
	for range 1000 {
		if mannWhitney(sample(0), sample(0)) < 0.05 {
			below++
		}
	}
	if below < 30 || below > 75 {
		t.Errorf("%d of 1000 below 0.05, want about 50", below)
	}
	if p := mannWhitney(sample(0), sample(0.5)); p > 1e-10 {
		t.Errorf("a clear difference gives %g", p)
	}
	if p := mannWhitney([]float64{1, 1, 1}, []float64{1, 1}); p != 1 {
		t.Errorf("no difference gives %g", p)
	}
}
