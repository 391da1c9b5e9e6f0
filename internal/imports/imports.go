// Package imports brings stores of other systems here: it reads a file with one store and
// its owner in each line, checks all of it, and then makes the owners, the stores and their
// databases. Its callers have access to the master database; it checks no permission.
//
// An import can run again at any time: it makes what is missing and keeps what is there.
// The recorded state is that of the stores themselves, so that it can go on after its
// process was killed anywhere.
package imports

import (
	"log/slog"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// Service imports stores. It is safe for concurrent use.
type Service struct {
	db           *masterdb.DB
	accounts     *accounts.Accounts
	registry     *stores.Registry
	tenants      *tenantdb.Manager
	provisioning *provisioning.Service
	log          *slog.Logger
}

// New returns a service.
func New(db *masterdb.DB, a *accounts.Accounts, r *stores.Registry, t *tenantdb.Manager, p *provisioning.Service, log *slog.Logger) *Service {
	return &Service{db: db, accounts: a, registry: r, tenants: t, provisioning: p, log: log}
}

// MaxParallel is how many stores an import can work on at the same time.
const MaxParallel = 16

// Options say how to import.
type Options struct {
	Parallel    int  // how many stores at the same time, 1 to MaxParallel
	Verified    bool // the operator vouches that the addresses are the owners'
	StopOnError bool // begin no more stores after the first one that fails
	DryRun      bool // change nothing; connect to the owners' own databases and look
}

// State is what became of one line, or with Options.DryRun would become of it.
type State string

// The states.
const (
	Made       State = "made"        // the store is new
	Completed  State = "completed"   // the store was there, and what it lacked was added
	Kept       State = "kept"        // the store was there and is unchanged
	Failed     State = "failed"      // see Result.Code
	ToMake     State = "to_make"     // in a dry run
	ToComplete State = "to_complete" // in a dry run
)

// Result is the result of one line.
type Result struct {
	Line      int
	Email     string
	Slug      string
	Store     stoa.StoreID // zero if there is none
	OwnerMade bool         // the account is new or, in a dry run, would be
	State     State
	Code      stoa.Code // of a failure
	Message   string    // of a failure
	Warnings  []tenantdb.Warning
	Adoption  *tenantdb.Adoption // in a dry run, of a database with tables of others
	Duration  time.Duration
}

// Fault is a fault of the file. No fault contains a password, its hash or a connection
// string.
type Fault struct {
	Line    int
	Column  string // "" for the whole line
	Message string
}

// MaxFaults is how many faults a Summary lists.
const MaxFaults = 1000

// Summary is the result of an import. With faults nothing was changed.
type Summary struct {
	Lines      int
	Faults     []Fault // the first ones, by line
	FaultCount int     // of all
	Owners     int     // accounts made
	Made       int     // stores
	Completed  int
	Kept       int
	Failed     int
	NotReached int
	Duration   time.Duration
}

// add counts a result.
func (s *Summary) add(r Result) {
	if r.OwnerMade {
		s.Owners++
	}
	switch r.State {
	case Made, ToMake:
		s.Made++
	case Completed, ToComplete:
		s.Completed++
	case Kept:
		s.Kept++
	case Failed:
		s.Failed++
	}
}

// Observer follows an import. Its methods are not called concurrently.
type Observer interface {
	// Begin is called once the file was checked and has no fault.
	Begin(lines int)
	// Add is called for each line that has ended, in the order in which they end.
	Add(Result)
}
