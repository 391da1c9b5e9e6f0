package main

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// connCache is the simplest way to serve many stores over few connections: an LRU cache of
// single connections. Its cost is the cost of the connection limit itself, independent of
// the implementation.
type connCache struct {
	limit  int
	stores map[string]cacheable // by Host

	connects atomic.Int64 // connections made so far

	mu      sync.Mutex
	entries map[string]*list.Element // of *cachedConn, by Host
	recent  list.List                // most recently used first
}

type cacheable struct {
	config *pgx.ConnConfig
	id     string
}

type cachedConn struct {
	host  string
	users int // callers that use it or wait for it; guarded by connCache.mu

	mu    sync.Mutex
	stale *pgx.Conn // another store's connection, to be closed first
	conn  *pgx.Conn
}

func newConnCache(stores []bareStore, limit int) (*connCache, error) {
	c := &connCache{limit: limit, stores: map[string]cacheable{}, entries: map[string]*list.Element{}}
	for _, s := range stores {
		config, err := pgx.ParseConfig(s.URL)
		if err != nil {
			return nil, err
		}
		config.RuntimeParams["application_name"] = cacheApplication
		c.stores[s.Host] = cacheable{config, s.ID}
	}
	return c, nil
}

func (c *connCache) read(ctx context.Context, host string, into *bareAnswer) error {
	e, err := c.take(host)
	if err != nil {
		return err
	}
	defer c.leave(e)
	e.mu.Lock()
	defer e.mu.Unlock()
	store := c.stores[host]
	made, err := e.connect(ctx, store.config)
	if err != nil {
		return err
	}
	if made {
		c.connects.Add(1)
	}
	return into.scan(e.conn.QueryRow(ctx, bareQuery, store.id))
}

// take returns the store's entry. It creates one if needed, in place of the least recently
// used entry when the cache is full.
func (c *connCache) take(host string) (*cachedConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if place := c.entries[host]; place != nil {
		c.recent.MoveToFront(place)
		e := place.Value.(*cachedConn)
		e.users++
		return e, nil
	}
	e := &cachedConn{host: host, users: 1}
	if c.recent.Len() >= c.limit {
		place := c.recent.Back()
		for place != nil && place.Value.(*cachedConn).users > 0 {
			place = place.Prev()
		}
		if place == nil {
			return nil, fmt.Errorf("all %d connections are in use", c.limit)
		}
		old := c.recent.Remove(place).(*cachedConn)
		delete(c.entries, old.host)
		e.stale = old.conn
	}
	c.entries[host] = c.recent.PushFront(e)
	return e, nil
}

func (c *connCache) leave(e *cachedConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
}

// connect first waits until the server has ended the connection that this one replaces. It
// reports whether it has made a connection.
func (e *cachedConn) connect(ctx context.Context, config *pgx.ConnConfig) (made bool, err error) {
	if e.stale != nil {
		_ = e.stale.Close(ctx) // it is gone either way
		e.stale = nil
	}
	if e.conn != nil && !e.conn.IsClosed() {
		return false, nil
	}
	e.conn, err = pgx.ConnectConfig(ctx, config)
	return err == nil, err
}

func (c *connCache) close() {
	for place := c.recent.Front(); place != nil; place = place.Next() {
		if conn := place.Value.(*cachedConn).conn; conn != nil {
			_ = conn.Close(context.Background())
		}
	}
}
