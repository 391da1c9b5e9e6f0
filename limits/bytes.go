package limits

import (
	"context"
	"sync"
)

// ByteBudget bounds how many bytes are held in memory at one time, in all and
// under each key. It is safe for concurrent use. A nil *ByteBudget has no bound.
type ByteBudget struct {
	total, share int64

	mu      sync.Mutex
	used    int64
	keys    map[Key]int64
	refused uint64
}

// NewByteBudget returns a budget of total bytes, of which one key gets share
// at most.
func NewByteBudget(total, share int64) *ByteBudget {
	return &ByteBudget{total: total, share: min(share, total), keys: map[Key]int64{}}
}

// Take counts n bytes under k and reports whether they are within the budget.
// A key may hold its share and never more than is left for all others: so
// whoever holds much is refused first, and whoever holds little last.
// (The rule is the dynamic threshold of Choudhury and Hahne, 1998.)
func (b *ByteBudget) Take(k Key, n int64) bool {
	if b == nil || n <= 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.keys[k] + n
	if held > b.share || held > b.total-b.used {
		b.refused++
		return false
	}
	b.used += n
	b.keys[k] = held
	return true
}

// Give returns n bytes that were taken under k.
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

// ByteStats is how much of a budget is in use.
type ByteStats struct {
	Used, Total int64
	Refused     uint64 // calls of Take, since the start
}

// Stats takes a snapshot.
func (b *ByteBudget) Stats() ByteStats {
	if b == nil {
		return ByteStats{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return ByteStats{b.used, b.total, b.refused}
}

// Held are the bytes that one request holds until it ends. It is safe for
// concurrent use. A nil *Held has no bound and counts nothing.
type Held struct {
	budget *ByteBudget
	mu     sync.Mutex
	parts  []heldPart // in the order of the first Take
}

type heldPart struct {
	key   Key
	bytes int64
}

type heldKey struct{}

// Hold returns a context whose readers count what they read in the returned
// Held. The caller ends it with Release.
func (b *ByteBudget) Hold(ctx context.Context) (context.Context, *Held) {
	h := &Held{budget: b}
	return context.WithValue(ctx, heldKey{}, h), h
}

// HeldIn returns the Held that the context carries, or nil.
func HeldIn(ctx context.Context) *Held {
	h, _ := ctx.Value(heldKey{}).(*Held)
	return h
}

// Take counts n bytes under k until Release, or reports false.
func (h *Held) Take(k Key, n int64) bool {
	if h == nil {
		return true
	}
	if !h.budget.Take(k, n) {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.parts {
		if h.parts[i].key == k {
			h.parts[i].bytes += n
			return true
		}
	}
	h.parts = append(h.parts, heldPart{k, n})
	return true
}

// Key returns the key of the first bytes that were taken, if there are any.
func (h *Held) Key() (k Key, ok bool) {
	if h == nil {
		return k, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.parts) == 0 {
		return k, false
	}
	return h.parts[0].key, true
}

// Release returns all bytes to the budget.
func (h *Held) Release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.parts {
		h.budget.Give(p.key, p.bytes)
	}
	h.parts = nil
}
