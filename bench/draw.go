package main

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
)

// draw is the distribution from which the load generator chooses the next target.
type draw string

const (
	goRound draw = "going round"
	uniform draw = "at random"
	zipf    draw = "by Zipf 1.1"
)

// zipfExponent makes the k-th target's probability proportional to k^-1.1.
const zipfExponent = 1.1

// noMore is drawn when the limit is reached.
const noMore = -1

// share returns the share of the draws among n targets that is of the most frequent ones.
func (d draw) share(most, n int) float64 {
	var part, all float64
	for k := range n {
		weight := 1.0
		if d == zipf {
			weight = math.Pow(float64(1+k), -zipfExponent)
		}
		if all += weight; k < most {
			part += weight
		}
	}
	return part / all
}

// from returns a function that creates the draws among n targets, one for each worker. With
// a limit, all workers together draw that many times.
func (d draw) from(n, limit int) func() func() int {
	var turn, drawn atomic.Int64
	return func() func() int {
		next := func() int { return int(turn.Add(1)-1) % n }
		random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) //nolint:gosec // not a secret
		switch d {
		case uniform:
			next = func() int { return random.IntN(n) }
		case zipf:
			z := rand.NewZipf(random, zipfExponent, 1, uint64(n-1)) //nolint:gosec // n is at least 1
			next = func() int { return int(z.Uint64()) }            //nolint:gosec // below n
		case goRound:
		}
		if limit == 0 {
			return next
		}
		return func() int {
			if drawn.Add(1) > int64(limit) {
				return noMore
			}
			return next()
		}
	}
}
