package lease

import "testing"

// TestWake checks that a caller is woken for the row that it waits for and, when
// notifications may have been missed, for every row.
func TestWake(t *testing.T) {
	t.Parallel()
	w := Waiters{calls: map[chan struct{}]string{}}
	first, leaveFirst := w.Join("row")
	second, leaveSecond := w.Join("row")
	third, _ := w.Join("another")
	woken := func() (n int) {
		for _, call := range []<-chan struct{}{first, second, third} {
			select {
			case <-call:
				n++
			default:
			}
		}
		return n
	}
	w.wake("row")
	w.wake("row") // this must not block although nobody has received yet
	if n := woken(); n != 2 {
		t.Errorf("%d of three were woken, want the two that wait for the row", n)
	}
	w.wake("")
	if n := woken(); n != 3 {
		t.Errorf("%d of three were woken when notifications may have been missed", n)
	}
	leaveFirst()
	leaveSecond()
	w.wake("row")
	if n := woken(); n != 0 || w.Len() != 1 {
		t.Errorf("%d were woken after they left, %d are left", n, w.Len())
	}
}
