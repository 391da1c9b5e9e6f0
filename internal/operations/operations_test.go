package operations_test

import (
	"context"
	"reflect"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/operations"
	"github.com/stoahq/stoa/internal/testkit"
)

// methods calls every method that a person can reach, by its name.
func (b fixture) methods() map[string]func(context.Context, authz.Principal) error {
	type call = func(context.Context, authz.Principal) error
	return map[string]call{
		"JobCounts": func(ctx context.Context, p authz.Principal) error { _, err := b.JobCounts(ctx, p); return err },
		"Queues":    func(ctx context.Context, p authz.Principal) error { _, err := b.Queues(ctx, p); return err },
		"JobKinds":  func(ctx context.Context, p authz.Principal) error { _, err := b.JobKinds(ctx, p); return err },
		"Jobs": func(ctx context.Context, p authz.Principal) error {
			_, err := b.Jobs(ctx, p, jobs.Filter{})
			return err
		},
		"RetryJob":  func(ctx context.Context, p authz.Principal) error { _, err := b.RetryJob(ctx, p, 1); return err },
		"CancelJob": func(ctx context.Context, p authz.Principal) error { _, err := b.CancelJob(ctx, p, 1); return err },
		"FailedMigrations": func(ctx context.Context, p authz.Principal) error {
			_, err := b.FailedMigrations(ctx, p, 0, "")
			return err
		},
		"Migrate":  b.Migrate,
		"MayGrant": b.MayGrant,
		"GrantCredits": func(ctx context.Context, p authz.Principal) error {
			_, err := b.GrantCredits(ctx, p, b.grant("k"))
			return err
		},
		"Verify":           b.Verify,
		"LastVerification": func(ctx context.Context, p authz.Principal) error { _, err := b.LastVerification(ctx, p); return err },
		"SetPrice": func(ctx context.Context, p authz.Principal) error {
			_, _, err := b.SetPrice(ctx, p, price())
			return err
		},
		"PriceHistory": func(ctx context.Context, p authz.Principal) error {
			_, err := b.PriceHistory(ctx, p, 0, "")
			return err
		},
	}
}

func (b fixture) grant(key string) operations.Grant {
	return operations.Grant{Store: b.account.Store, Amount: 5 * credits.Credit, Reason: "sorry for the outage", Key: key}
}

func price() credits.Price {
	return credits.Price{ServiceKey: "import", UnitPrice: credits.Credit, Unit: "item", Description: "An import"}
}

// TestOnlyOperators calls every method as somebody who is no operator. A method without a
// row in the table fails.
func TestOnlyOperators(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db, fleet.Options{})
		b.enqueue(t, operations.VerifyLedger{})
		all := b.methods()
		for m := range reflect.TypeFor[*operations.Service]().Methods() {
			if _, ok := all[m.Name]; !ok && m.Name != "RunVerification" { // a job, which nobody calls
				t.Errorf("the method %s is not tested", m.Name)
			}
		}
		key, acting, gone := b.operator, b.operator, authz.Principal{UserID: stoa.NewID[stoa.UserID]()}
		key.Key = authz.Key{ID: stoa.NewID[stoa.KeyID]()}
		acting.Impersonator = b.account.Owner.UserID
		for name, call := range all {
			for who, p := range map[string]authz.Principal{"an owner": b.account.Owner, "an operator's key": key, "nobody": gone, "somebody who is acted as": acting} {
				if err := call(t.Context(), p); stoa.CodeOf(err) != stoa.Forbidden {
					t.Errorf("%s as %s: %v, want forbidden", name, who, err)
				}
			}
		}
		b.exec(t, `UPDATE users SET suspended_at = $2 WHERE id = $1`, b.operator.UserID, db.Now().UTC())
		for name, call := range all {
			if err := call(t.Context(), b.operator); stoa.CodeOf(err) != stoa.Forbidden {
				t.Errorf("%s as a suspended operator: %v, want forbidden", name, err)
			}
		}
		if n := b.queued(t, "credits.verify") + b.queued(t, "fleet.migrations") + len(b.account.Rows(t)); n != 1 {
			t.Errorf("%d jobs and grants, want the job from before", n)
		}
		b.exec(t, `UPDATE users SET suspended_at = NULL WHERE id = $1`, b.operator.UserID)
		for name, call := range all {
			if err := call(t.Context(), b.operator); err != nil && stoa.CodeOf(err) != stoa.NotFound {
				t.Errorf("%s as an operator: %v", name, err)
			}
		}
		if n := b.audited(t, audit.OperatorActed); n < 7 { // one for each permission
			t.Errorf("%d accesses are in the audit log", n)
		}
	})
}

func TestJobFiltersAreBounded(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db, fleet.Options{})
		for name, f := range map[string]jobs.Filter{
			"a state": {States: []string{"open"}}, "SQL": {States: []string{"available' OR '1'='1"}}, "a long kind": {Kinds: []string{strings.Repeat("k", 101)}},
			"a control character": {Kinds: []string{"a\x00"}}, "no UTF-8": {Kinds: []string{"\xff"}}, "a negative limit": {Limit: -1},
			"a limit": {Limit: 100_000}, "a cursor": {Cursor: "nonsense"},
		} {
			if _, err := b.Jobs(t.Context(), b.operator, f); stoa.CodeOf(err) != stoa.InvalidRequest {
				t.Errorf("%s: %v, want invalid_request", name, err)
			}
		}
		for range 3 {
			b.enqueue(t, operations.VerifyLedger{})
		}
		page, err := b.Jobs(t.Context(), b.operator, jobs.Filter{Kinds: []string{"credits.verify"}, States: []string{"available"}, Limit: 2})
		testkit.Must(t, err)
		if len(page.Jobs) != 2 || page.NextCursor == nil || page.Jobs[0].ID < page.Jobs[1].ID {
			t.Fatalf("the first page: %+v", page)
		}
		page, err = b.Jobs(t.Context(), b.operator, jobs.Filter{Limit: 2, Cursor: *page.NextCursor})
		testkit.Must(t, err)
		if len(page.Jobs) != 1 || page.NextCursor != nil {
			t.Errorf("the last page: %+v", page)
		}
	})
}

func TestJobsAreChangedOnceAndAudited(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db, fleet.Options{})
		id := b.enqueue(t, operations.VerifyLedger{})
		job, err := b.CancelJob(t.Context(), b.operator, id)
		testkit.Must(t, err)
		if job.State != "cancelled" || b.audited(t, audit.JobCancelled) != 1 {
			t.Errorf("cancel: %+v, %d entries", job, b.audited(t, audit.JobCancelled))
		}
		job, err = b.RetryJob(t.Context(), b.operator, id)
		testkit.Must(t, err)
		if job.State != "available" || b.audited(t, audit.JobRetried) != 1 {
			t.Errorf("retry: %+v, %d entries", job, b.audited(t, audit.JobRetried))
		}
		for _, change := range []func(context.Context, authz.Principal, int64) (jobs.Job, error){b.CancelJob, b.RetryJob} {
			if _, err := change(t.Context(), b.operator, id+1000); stoa.CodeOf(err) != stoa.NotFound {
				t.Errorf("a job that does not exist: %v, want not_found", err)
			}
		}
		if n := b.audited(t, audit.JobCancelled) + b.audited(t, audit.JobRetried); n != 2 {
			t.Errorf("%d entries, want none for jobs that do not exist", n)
		}
	})
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db, fleet.Options{})
		for range 2 {
			testkit.Must(t, b.Migrate(t.Context(), b.operator))
		}
		if jobs, entries := b.queued(t, "fleet.migrations"), b.audited(t, audit.TenantsMigrated); jobs != 1 || entries != 2 {
			t.Errorf("%d jobs and %d entries, want 1 and 2", jobs, entries)
		}
		paused := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, db.Engine)), fleet.Options{Paused: true})
		if err := paused.Migrate(t.Context(), paused.operator); stoa.CodeOf(err) != stoa.Forbidden || paused.queued(t, "fleet.migrations") != 0 {
			t.Errorf("while migrations are paused: %v, want forbidden", err)
		}
	})
}

func TestGrantCredits(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db, fleet.Options{})
		for name, change := range map[string]func(*operations.Grant){
			"a short reason":    func(g *operations.Grant) { g.Reason = "  sorry   " },
			"a long reason":     func(g *operations.Grant) { g.Reason = strings.Repeat("é", 201) },
			"a reason of lines": func(g *operations.Grant) { g.Reason = "sorry for\nthe outage" },
			"no key":            func(g *operations.Grant) { g.Key = "" },
			"a long key":        func(g *operations.Grant) { g.Key = strings.Repeat("k", 101) },
			"no amount":         func(g *operations.Grant) { g.Amount = 0 },
			"less than nothing": func(g *operations.Grant) { g.Amount = -credits.Credit },
		} {
			g := b.grant("refused")
			change(&g)
			if _, err := b.GrantCredits(t.Context(), b.operator, g); stoa.CodeOf(err) != stoa.InvalidRequest {
				t.Errorf("%s: %v, want invalid_request", name, err)
			}
		}
		g := b.grant("refused")
		g.Store = stoa.NewID[stoa.StoreID]()
		if _, err := b.GrantCredits(t.Context(), b.operator, g); stoa.CodeOf(err) != stoa.StoreNotFound {
			t.Errorf("no store: %v, want store_not_found", err)
		}
		for range 2 {
			_, err := b.GrantCredits(t.Context(), b.operator, b.grant("once"))
			testkit.Must(t, err)
		}
		other := b.grant("once")
		other.Amount *= 2
		if _, err := b.GrantCredits(t.Context(), b.operator, other); stoa.CodeOf(err) != stoa.IdempotencyConflict {
			t.Errorf("another grant with the same key: %v, want idempotency_conflict", err)
		}
		if rows := b.account.Rows(t); len(rows) != 1 || rows[0].Amount != 5*credits.Credit || b.audited(t, audit.CreditsGranted) != 1 {
			t.Errorf("%+v, %d entries, want one grant", rows, b.audited(t, audit.CreditsGranted))
		}
	})
}

func TestPrices(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db, fleet.Options{})
		before, err := b.PriceHistory(t.Context(), b.operator, 0, "")
		testkit.Must(t, err)
		for i, want := range []bool{true, false} {
			if _, added, err := b.SetPrice(t.Context(), b.operator, price()); err != nil || added != want {
				t.Errorf("call %d: added: %v, %v", i, added, err)
			}
		}
		bad := price()
		bad.ServiceKey = "Not A Key"
		if _, _, err := b.SetPrice(t.Context(), b.operator, bad); stoa.CodeOf(err) != stoa.InvalidRequest {
			t.Errorf("a bad key: %v, want invalid_request", err)
		}
		after, err := b.PriceHistory(t.Context(), b.operator, 0, "")
		testkit.Must(t, err)
		if len(after.Prices) != len(before.Prices)+1 || b.audited(t, audit.PriceSet) != 1 {
			t.Errorf("%d prices after %d, %d entries", len(after.Prices), len(before.Prices), b.audited(t, audit.PriceSet))
		}
	})
}
