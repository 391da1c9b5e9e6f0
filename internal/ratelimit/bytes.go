package ratelimit

import (
	"context"
	"hash/maphash"
	"sync"
	"time"
)

// ByteBudget limits how many bytes are in memory at one time, in total and for
// each key. It is safe for concurrent use. A nil *ByteBudget has no limit.
type ByteBudget struct {
	total, share int64

	mu       sync.Mutex
	used     int64
	keys     map[Key]int64
	expected map[question]int64 // bytes of the large answers, as far as they are known
	refused  uint64
}

// question is what a request asks of a key's database.
type question struct {
	key  Key
	text uint64 // its hash
}

var questionSeed = maphash.MakeSeed()

const (
	// largeAnswer is the size from which an answer's size is remembered.
	largeAnswer = 128 << 10
	// maxExpected limits how many sizes are remembered, in less than 1 MiB.
	maxExpected = 4096
)

// NewByteBudget returns a budget of total bytes, of which one key gets at most
// share.
func NewByteBudget(total, share int64) *ByteBudget {
	return &ByteBudget{total: total, share: min(share, total), keys: map[Key]int64{}, expected: map[question]int64{}}
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

// expect returns how many bytes the answer to q is likely to need. It is at most half of
// a share, so that a key without answers in memory is asked again whatever its last
// answer was.
func (b *ByteBudget) expect(q question) int64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return min(b.expected[q], b.share/2)
}

// learn remembers the size of a large answer. A smaller answer to the same question, such
// as a shorter page, lowers the size by a quarter at most.
func (b *ByteBudget) learn(q question, size int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old, known := b.expected[q]
	size = max(size, old-old/4)
	if size < largeAnswer {
		delete(b.expected, q)
		return
	}
	if !known && len(b.expected) >= maxExpected {
		for other := range b.expected { // a random one
			delete(b.expected, other)
			break
		}
	}
	b.expected[q] = size
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
	asked  question       // of the first Expect
	peak   int64          // the most bytes that the asked key needed at one time
}

// reservedPart is the bytes of one key. The budget has counted the larger of used and
// expected.
type reservedPart struct {
	key            Key
	used, expected int64
}

func (p *reservedPart) taken() int64 { return max(p.used, p.expected) }

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

// Expect is called before the request asks something of k's database. It takes the bytes
// that the last answer to the same question needed, from reading to sending, and reports
// whether they are within the budget. So while answers that nobody reads fill the share of
// k, a further one costs nothing. Only a request's first question counts.
func (r *Reservation) Expect(k Key, text string) bool {
	if r == nil {
		return true
	}
	q := question{k, maphash.String(questionSeed, text)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked != (question{}) {
		return true
	}
	p, expected := r.part(k), r.budget.expect(q)
	if !r.budget.Take(k, expected-p.taken()) {
		return false
	}
	r.asked, p.expected = q, expected
	return true
}

// Take counts n bytes for k until Give or Release. It reports whether they are within the
// budget.
func (r *Reservation) Take(k Key, n int64) bool {
	if r == nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.part(k)
	if k == r.asked.key {
		r.peak = max(r.peak, p.used+n)
	}
	if !r.budget.Take(k, p.used+n-p.taken()) {
		return false
	}
	p.used += n
	return true
}

// Refused records that the request was refused while it read the answer to its question. The
// connection counts the bytes of the answer too until the whole of it has been read, so it
// needed as much again as has been read. The next requests do not have to wait until this
// one ends to know that.
func (r *Reservation) Refused() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked == (question{}) {
		return
	}
	p := r.part(r.asked.key)
	r.peak = max(r.peak, p.taken()+p.used)
	r.budget.learn(r.asked, r.peak)
}

// Give returns n bytes that were taken for k.
func (r *Reservation) Give(k Key, n int64) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.part(k)
	before := p.taken()
	p.used -= n
	r.budget.Give(k, before-p.taken())
}

// part returns the part of k, which it adds if there is none. The caller holds the lock and
// uses the part before the next call.
func (r *Reservation) part(k Key) *reservedPart {
	for i := range r.parts {
		if r.parts[i].key == k {
			return &r.parts[i]
		}
	}
	r.parts = append(r.parts, reservedPart{key: k})
	return &r.parts[len(r.parts)-1]
}

// Key returns the first key for which something was expected or taken, if there is one.
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
	r.learn()
	for _, p := range r.parts {
		r.budget.Give(p.key, p.taken())
	}
	r.parts = nil
}

// ReleaseAfter returns all bytes to the budget after d.
func (r *Reservation) ReleaseAfter(d time.Duration) {
	r.mu.Lock()
	r.learn()
	r.mu.Unlock()
	time.AfterFunc(d, r.Release)
}

// learn remembers how large the answer to the question was. The caller holds the lock.
func (r *Reservation) learn() {
	if r.asked != (question{}) {
		r.budget.learn(r.asked, r.peak)
		r.asked = question{}
	}
}
