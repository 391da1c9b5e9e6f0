package storedata_test

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// hostile is text that breaks SQL built by string concatenation: SQL, LIKE patterns,
// escapes, 4-byte characters, combining marks and spaces at the ends.
const hostile = ` Robert'); DROP TABLE stores;-- "q" \ \' % _ ? $1 :x {} 🧁👩‍👩‍👧 Größe e` + "\u0301" + ` 漢字 العربية  `

// setup creates one store in db.
func setup(t *testing.T, db *tenantdb.DB) storedata.Profile {
	t.Helper()
	p := storedata.Profile{ID: stoa.NewID[stoa.StoreID](), ProfileValues: storedata.ProfileValues{Name: "Bakery", Slug: "bakery"}}
	testkit.Must(t, storedata.CreateStore(t.Context(), db, p))
	p, err := storedata.ReadProfile(t.Context(), db, p.ID)
	testkit.Must(t, err)
	return p
}

func ptr[T any](v T) *T { return &v }

// atOnce runs fn n times concurrently, with a common start, and returns the errors.
func atOnce(n int, fn func(i int) error) []error {
	errs, start := make([]error, n), make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = fn(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// count returns the number of rows in a table.
func count(t *testing.T, db *tenantdb.DB, table string) int {
	t.Helper()
	var n int
	testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM `+table))
	return n
}

// faultsOf returns the names of the fields in the faults of err, sorted.
func faultsOf(t *testing.T, err error) []string {
	t.Helper()
	var e *stoa.Error
	if !errors.As(err, &e) || e.Code != stoa.InvalidRequest {
		t.Fatalf("got %v, want invalid_request", err)
	}
	var fields []string
	for _, f := range e.Fields {
		fields = append(fields, f.Field)
	}
	slices.Sort(fields)
	return fields
}
