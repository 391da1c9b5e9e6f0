package main

import (
	"math/rand/v2"
	"sync/atomic"
)

// draw is how the load generator chooses the next target.
type draw string

const (
	goRound draw = "going round"
	uniform draw = "at random"
	zipf    draw = "by Zipf 1.1"
)

// zipfExponent: the k-th target is asked for in proportion to k^-1.1.
const zipfExponent = 1.1

// noMore is drawn when there have been enough.
const noMore = -1

// from returns a maker of draws among n targets, one for each worker. With a
// limit, the workers draw that many times altogether.
func (d draw) from(n, limit int) func() func() int {
	var turn, drawn atomic.Int64
	return func() func() int {
		next := func() int { return int(turn.Add(1)-1) % n }
		random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) //nolint:gosec // no secret
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
