package httpapi

import (
	"sync"
	"time"

	"github.com/stoahq/stoa"
)

// maxDatabaseWaits is how many requests of one user may wait for a database
// server at the same time, in this process.
const maxDatabaseWaits = 4

// databaseSlots counts the requests of each user that wait for a database
// server. The server decides how long they take, so each user has few. It is
// safe for concurrent use.
type databaseSlots struct {
	mu   sync.Mutex
	used map[stoa.UserID]int
}

// acquire takes one of the user's slots until release is called. It fails with
// rate_limited when all are taken.
func (s *databaseSlots) acquire(user stoa.UserID) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used[user] >= maxDatabaseWaits {
		err := stoa.Errorf(stoa.RateLimited, "%d of your requests already wait for a database server. Wait until one of them has ended.", maxDatabaseWaits)
		err.RetryAfter = time.Second
		return func() {}, err
	}
	if s.used == nil {
		s.used = map[stoa.UserID]int{}
	}
	s.used[user]++
	return func() { s.release(user) }, nil
}

func (s *databaseSlots) release(user stoa.UserID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used[user]--; s.used[user] == 0 {
		delete(s.used, user)
	}
}
