package main

import (
	"math"
	"testing"
)

func TestDrawEnds(t *testing.T) {
	t.Parallel()
	for _, d := range []draw{goRound, uniform, zipf} {
		worker := d.from(10, 25)
		a, b := worker(), worker()
		drawn, seen := 0, map[int]int{}
		for _, next := range []func() int{a, b} {
			for range 20 {
				if i := next(); i != noMore {
					drawn++
					seen[i]++
				}
			}
		}
		if drawn != 25 {
			t.Errorf("%s: two workers with a limit of 25 drew %d times", d, drawn)
		}
		for i := range 10 {
			if d == goRound && seen[i] < 2 {
				t.Errorf("going round, target %d came %d times of 25", i, seen[i])
			}
		}
	}
}

func TestZipf(t *testing.T) {
	t.Parallel()
	const n, draws = 1000, 1_000_000
	next, counts := zipf.from(n, 0)(), make([]int, n)
	for range draws {
		counts[next()]++
	}
	var sum float64
	for k := 1; k <= n; k++ {
		sum += math.Pow(float64(k), -zipfExponent)
	}
	for _, k := range []int{1, 2, 10, 100} { // the last has about a thousand draws, so its standard deviation is 3 %
		got, want := float64(counts[k-1])/draws, math.Pow(float64(k), -zipfExponent)/sum
		if math.Abs(got/want-1) > 0.25 {
			t.Errorf("target %d has %.5f of the draws, want about %.5f", k, got, want)
		}
	}
}
