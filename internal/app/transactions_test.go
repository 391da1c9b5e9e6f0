package app_test

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
)

// grant gives a store credits without the API.
func (s *server) grant(t *testing.T, store string, g credits.Grant) {
	t.Helper()
	id, err := stoa.ParseID[stoa.StoreID](store)
	if err != nil {
		t.Fatal(err)
	}
	if g.IdempotencyKey == "" {
		g.IdempotencyKey = stoa.NewID[stoa.TransactionID]().String()
	}
	if err := s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := s.Ledger.Grant(t.Context(), tx, id, g)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestHistoryAsCSV checks that the export contains the whole history, longer than any
// page and any chunk, with the filters and permissions of the list.
func TestHistoryAsCSV(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, id := register(t, s, "owner@example.com")
		s.grant(t, id, credits.Grant{Type: credits.TypeBonus, Amount: 100 * credits.Credit, Description: "=HYPERLINK(\"http://evil.example\")"})
		const rows = 2100 // more than two chunks
		store, err := stoa.ParseID[stoa.StoreID](id)
		if err != nil {
			t.Fatal(err)
		}
		for begin := 0; begin < rows; begin += 300 {
			if err := s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
				for i := begin; i < begin+300; i++ {
					if _, err := s.Ledger.Grant(t.Context(), tx, store, credits.Grant{
						Type: credits.TypeAdjustment, Amount: 1, Description: "Käse, \"grün\"", IdempotencyKey: fmt.Sprint("row ", i),
					}); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		c.call("POST", "/api/credits/spend", object{"serviceKey": "product_import", "quantity": 3, "description": "-1"}).want(http.StatusOK)

		export := func(query string) [][]string {
			t.Helper()
			a := c.call("GET", "/api/credits/transactions?"+query, nil, "Accept", "text/csv").want(http.StatusOK)
			if got := a.header.Get("Content-Type"); got != "text/csv; charset=utf-8; header=present" {
				t.Errorf("content type %q", got)
			}
			if got := a.header.Get("Content-Disposition"); !strings.Contains(got, "credits-"+id) {
				t.Errorf("content disposition %q", got)
			}
			records, err := csv.NewReader(strings.NewReader(a.raw)).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(records[0], " "); got != "sequence id createdAt type amount balanceAfter debtChange serviceKey quantity unitPrice description reference" {
				t.Errorf("header: %s", got)
			}
			return records[1:]
		}
		all := export("limit=5")
		if len(all) != rows+2 {
			t.Fatalf("%d rows, want %d", len(all), rows+2)
		}
		for i, row := range all {
			if want := fmt.Sprint(rows + 2 - i); row[0] != want {
				t.Fatalf("row %d has sequence %s, want %s", i, row[0], want)
			}
		}
		if got, want := strings.Join(all[0][3:], "|"), "spend|-0.3|99.91|0|product_import|3|0.1|'-1|"; got != want {
			t.Errorf("the spend: %s, want %s", got, want)
		}
		if got := all[1][10]; got != "Käse, \"grün\"" {
			t.Errorf("description %q", got)
		}
		if got := all[rows+1][10]; !strings.HasPrefix(got, "'=HYPERLINK") {
			t.Errorf("a formula: %q", got)
		}
		if got := export("type=bonus&storeId=" + id); len(got) != 1 {
			t.Errorf("%d bonuses", len(got))
		}
		if got := export("type=expiry"); len(got) != 0 {
			t.Errorf("%d expiries", len(got))
		}

		const path = "/api/credits/transactions?storeId="
		for accept, csv := range map[string]bool{
			"text/csv;q=0.5, application/json": false, "*/*": false, "text/html": false, "": false, "text/csv, */*": true, "application/json;q=0.1,text/csv": true,
		} {
			a := c.call("GET", path+id, nil, "Accept", accept).want(http.StatusOK)
			if got := strings.HasPrefix(a.header.Get("Content-Type"), "text/csv"); got != csv || a.header.Get("Vary") != "Accept" {
				t.Errorf("Accept %q: %q, Vary %q", accept, a.header.Get("Content-Type"), a.header.Get("Vary"))
			}
		}
		mallory, _ := register(t, s, "mallory@example.com")
		mallory.call("GET", path+id, nil, "Accept", "text/csv").problem(http.StatusNotFound, "store_not_found")
		c.call("GET", path+id+"&type=gift", nil, "Accept", "text/csv").problem(http.StatusUnprocessableEntity, "invalid_request")
	})
}
