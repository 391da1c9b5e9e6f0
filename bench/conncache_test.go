package main

import "testing"

// TestConnCacheKeepsItsLimit checks that the baseline keeps the limit as strictly as the
// platform must, and never takes a connection that is in use.
func TestConnCacheKeepsItsLimit(t *testing.T) {
	t.Parallel()
	c, err := newConnCache(nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	a, b := take(t, c, "a"), take(t, c, "b")
	if _, err := c.take("c"); err == nil {
		t.Error("a third connection was given while two are in use")
	}
	c.leave(b)
	c.leave(a)
	c.leave(take(t, c, "b")) // so that a is the least recently used
	take(t, c, "c")
	if c.entries["a"] != nil || c.entries["b"] == nil || c.recent.Len() != 2 {
		t.Errorf("c did not take the place of a: %d entries", c.recent.Len())
	}
	if again := take(t, c, "b"); again != b {
		t.Error("b has lost its connection")
	}
}

func take(t *testing.T, c *connCache, host string) *cachedConn {
	t.Helper()
	e, err := c.take(host)
	if err != nil {
		t.Fatal(err)
	}
	return e
}
