package page_test

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestPagesCoverTheList reads a list page by page, for each form of cursor. It checks that
// every row comes once, in order, and that only the last page has no cursor.
func TestPagesCoverTheList(t *testing.T) {
	t.Parallel()
	var ids []stoa.StoreID
	var sequences []int64
	for i := range 45 {
		ids = append(ids, stoa.NewID[stoa.StoreID]())
		sequences = append(sequences, int64(i+1))
	}
	compareIDs := func(a, b stoa.StoreID) int { return strings.Compare(a.String(), b.String()) }
	slices.SortFunc(ids, func(a, b stoa.StoreID) int { return compareIDs(b, a) })
	slices.Reverse(sequences)
	for _, limit := range []int{0, 1, 7, 44, 45, 46, page.MaxLimit} {
		check(t, ids, limit, compareIDs, page.ByID[stoa.StoreID], stoa.StoreID.String)
		check(t, ids, limit, compareIDs, page.ByEncodedID[stoa.StoreID], page.EncodeID[stoa.StoreID])
		check(t, sequences, limit, func(a, b int64) int { return int(a - b) }, page.BySequence, page.EncodeSequence)
	}
}

// check reads list, whose rows are their own keys, in pages of limit rows.
func check[K comparable](t *testing.T, list []K, limit int, compare func(a, b K) int,
	bounds func(int, string, *stoa.Invalid) page.Bounds[K], cursor func(K) string,
) {
	t.Helper()
	var read []K
	for next := new(string); next != nil; {
		var faults stoa.Invalid
		b := bounds(limit, *next, &faults)
		if err := faults.Err(); err != nil {
			t.Fatalf("limit %d, cursor %q: %v", limit, *next, err)
		}
		var rows []K
		for _, key := range list {
			if compare(key, b.Before) < 0 && len(rows) < b.Rows() {
				rows = append(rows, key)
			}
		}
		rows, next = page.Cut(rows, b.Limit, cursor)
		if len(rows) > b.Limit || next != nil && len(rows) != b.Limit {
			t.Fatalf("limit %d: a page of %d rows", limit, len(rows))
		}
		read = append(read, rows...)
	}
	if !slices.Equal(read, list) {
		t.Errorf("limit %d: read %d rows that are not the list's %d", limit, len(read), len(list))
	}
}

func TestBoundsRefuse(t *testing.T) {
	t.Parallel()
	id := stoa.NewID[stoa.StoreID]()
	byID, byEncodedID := page.ByID[stoa.StoreID], page.ByEncodedID[stoa.StoreID]
	for _, c := range []struct {
		limit  int
		cursor string
		by     func(int, string, *stoa.Invalid) error
		want   string // the invalid fields
	}{
		{0, "", faultsOf(byID), ""},
		{page.MaxLimit, id.String(), faultsOf(byID), ""},
		{-1, "", faultsOf(byID), "limit"},
		{page.MaxLimit + 1, "x", faultsOf(byID), "limit cursor"},
		{1, page.EncodeID(id), faultsOf(byID), "cursor"},
		{1, page.EncodeID(id), faultsOf(byEncodedID), ""},
		{1, id.String(), faultsOf(byEncodedID), "cursor"},
		{1, page.EncodeID(id)[:21], faultsOf(byEncodedID), "cursor"},
		{1, page.EncodeID(id)[:21] + "B", faultsOf(byEncodedID), "cursor"}, // with bits set beyond the last byte
		{1, "*", faultsOf(byEncodedID), "cursor"},
		{1, page.EncodeSequence(7), faultsOf(page.BySequence), ""},
		{1, page.EncodeSequence(math.MaxInt64), faultsOf(page.BySequence), ""},
		{1, page.EncodeSequence(0), faultsOf(page.BySequence), "cursor"},
		{1, page.EncodeSequence(-7), faultsOf(page.BySequence), "cursor"},
		{1, "Kzc", faultsOf(page.BySequence), "cursor"}, // "+7"
		{1, "7", faultsOf(page.BySequence), "cursor"},
	} {
		var fields []string
		err := c.by(c.limit, c.cursor, nil)
		if err != nil {
			for _, f := range err.(*stoa.Error).Fields { //nolint:errorlint,forcetypeassert // ByID and its variants return no other type
				fields = append(fields, f.Field)
			}
		}
		if got := strings.Join(fields, " "); got != c.want {
			t.Errorf("limit %d, cursor %q: faults in %q, want %q", c.limit, c.cursor, got, c.want)
		}
	}
}

// faultsOf adapts by to a function that returns the error.
func faultsOf[K any](by func(int, string, *stoa.Invalid) page.Bounds[K]) func(int, string, *stoa.Invalid) error {
	return func(limit int, cursor string, _ *stoa.Invalid) error {
		var faults stoa.Invalid
		by(limit, cursor, &faults)
		return faults.Err()
	}
}

// TestAll reads lists of all lengths in parts: every row comes once, an error ends the list,
// and nothing is read after the last row that is asked for.
func TestAll(t *testing.T) {
	t.Parallel()
	ids := make([]stoa.StoreID, 2*page.Part+1)
	for i := range ids {
		ids[i] = stoa.NewID[stoa.StoreID]()
	}
	slices.SortFunc(ids, compareIDs)
	self := func(id stoa.StoreID) stoa.StoreID { return id }
	for _, n := range []int{0, 1, page.Part - 1, page.Part, page.Part + 1, 2 * page.Part, 2*page.Part + 1} {
		reads := 0
		got, err := testkit.Collect(page.All(self, func(after stoa.StoreID) ([]stoa.StoreID, error) {
			reads++
			rest := ids[:n]
			for len(rest) > 0 && compareIDs(rest[0], after) <= 0 {
				rest = rest[1:]
			}
			return rest[:min(len(rest), page.Part)], nil
		}))
		if err != nil || !slices.Equal(got, ids[:n]) || reads != n/page.Part+1 {
			t.Errorf("of %d rows: %d in %d readings, %v", n, len(got), reads, err)
		}
	}
	fails := errors.New("away")
	list := page.All(self, func(after stoa.StoreID) ([]stoa.StoreID, error) {
		if after.IsZero() {
			return ids[:page.Part], nil
		}
		return nil, fails
	})
	if got, err := testkit.Collect(list); len(got) != page.Part || !errors.Is(err, fails) {
		t.Errorf("%d rows, %v", len(got), err)
	}
	for _, err := range list {
		if err != nil {
			t.Error(err)
		}
		break // the error of the second part is not met
	}
}

func compareIDs(a, b stoa.StoreID) int { return bytes.Compare(a[:], b[:]) }
