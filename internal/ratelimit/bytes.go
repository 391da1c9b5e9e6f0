package ratelimit

import (
	"context"
	"sync"
)

// ByteBudget limits how many bytes are in memory at one time, in total and for
// each key. It is safe for concurrent use. A nil *ByteBudget has no limit.
type ByteBudget struct {
	total, share int64

	mu      sync.Mutex
	used    int64
	keys    map[Key]int64
	refused uint64
}

// NewByteBudget returns a budget of total bytes, of which one key gets at most
// share.
func NewByteBudget(total, share int64) *ByteBudget {
	return &ByteBudget{total: total, share: min(share, total), keys: map[Key]int64{}}
}

// Take counts n bytes for k and reports whether they are within the budget. A key
// may have at most its share, and at most as much as is left for all others, so
// that the keys with the most bytes are refused first (the dynamic threshold of
// Choudhury and Hahne, 1998).
func (b *ByteBudget) Take(k Key, n int64) bool {
	if b == nil || n <= 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.keys[k] + n
	if taken > b.share || taken > b.total-b.used {
		b.refused++
		return false
	}
	b.used += n
	b.keys[k] = taken
	return true
}

// Give returns n bytes that were taken for k.
func (b *ByteBudget) Give(k Key, n int64) {
	if b == nil || n <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.keys[k] -= n; b.keys[k] <= 0 {
		delete(b.keys, k)
	}
}

// ByteStats is the use of a budget.
type ByteStats struct {
	Used, Total int64
	Refused     uint64 // refused calls of Take since the start
}

// Stats returns the use of the budget.
func (b *ByteBudget) Stats() ByteStats {
	if b == nil {
		return ByteStats{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return ByteStats{Used: b.used, Total: b.total, Refused: b.refused}
}

// Reservation is the bytes that one request has taken from a budget until it ends.
// It is safe for concurrent use. A nil *Reservation has no limit and counts nothing.
type Reservation struct {
	budget *ByteBudget
	mu     sync.Mutex
	parts  []reservedPart // in the order of the first Take
}

type reservedPart struct {
	key   Key
	bytes int64
}

type reservationKey struct{}

// Reserve returns a context whose readers count what they read in the returned
// Reservation. The caller ends it with Release.
func (b *ByteBudget) Reserve(ctx context.Context) (context.Context, *Reservation) {
	r := &Reservation{budget: b}
	return context.WithValue(ctx, reservationKey{}, r), r
}

// ReservationIn returns the Reservation of the context, or nil.
func ReservationIn(ctx context.Context) *Reservation {
	r, _ := ctx.Value(reservationKey{}).(*Reservation)
	return r
}

// Take counts n bytes for k until Release. It reports whether they are within the
// budget.
func (r *Reservation) Take(k Key, n int64) bool {
	if r == nil {
		return true
	}
	if !r.budget.Take(k, n) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.parts {
		if r.parts[i].key == k {
			r.parts[i].bytes += n
			return true
		}
	}
	r.parts = append(r.parts, reservedPart{key: k, bytes: n})
	return true
}

// Key returns the key of the first bytes that were taken, if any were.
func (r *Reservation) Key() (k Key, ok bool) {
	if r == nil {
		return k, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.parts) == 0 {
		return k, false
	}
	return r.parts[0].key, true
}

// Release returns all bytes to the budget.
func (r *Reservation) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.parts {
		r.budget.Give(p.key, p.bytes)
	}
	r.parts = nil
}
