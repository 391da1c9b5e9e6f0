package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// These are the targets of the operator's list of stores.
const (
	operatorPageTarget = 200.0 // ms, median over the larger fleet
	operatorGrowth     = 1.5   // the larger fleet's median of the smaller one's
)

// operatorCmd measures the operator's page of all stores in the console: over a small
// fleet and, in the same run, over a large one.
type operatorCmd struct {
	common
	Few      int `default:"100" help:"Stores of the small fleet."`
	Stores   int `default:"10000" help:"Stores of the large fleet."`
	Requests int `default:"200" help:"Requests for each page."`
}

// operatorPages are the pages that are measured, by their name in the report.
var operatorPages = []struct{ name, path string }{
	{"first page", "/operator/stores"},
	{"search", "/operator/stores?q=fleet-00"},
	{"suspended only", "/operator/stores?status=suspended"},
	{"glance", "/operator"},
	{"migrations", "/operator/migrations"},
	{"jobs", "/operator/jobs"},
	{"completed jobs", "/operator/jobs?state=completed"},
}

func (cmd operatorCmd) Run(ctx context.Context) (err error) {
	if cmd.Quick {
		cmd.Few, cmd.Stores, cmd.Requests = 20, 500, 20
	}
	f, err := startFleet(ctx, cmd.Postgres, fleetPlan{stores: 1, open: openEmbedded})
	if f != nil {
		defer func() { err = f.stop(ctx, err) }()
	}
	if err != nil {
		return err
	}
	browser, err := signInOperator(ctx, f)
	if err != nil {
		return err
	}
	r := &report{Measurement: "operator", About: fmt.Sprintf("pages over %d and %d stores, %d requests each, one at a time, medians", cmd.Few, cmd.Stores, cmd.Requests)}
	few, err := cmd.measure(ctx, f, browser, cmd.Few)
	if err != nil {
		return err
	}
	many, err := cmd.measure(ctx, f, browser, cmd.Stores)
	if err != nil {
		return err
	}
	for i, p := range operatorPages {
		r.atMost(p.name+" over the large fleet", figure{Value: float64(many[i]) / float64(time.Millisecond), Unit: " ms"}, operatorPageTarget)
		if i > 0 {
			continue // other pages have fewer rows over the small fleet
		}
		r.atMost(p.name+", of the small fleet", figure{Value: float64(many[i]) / float64(few[i])}, operatorGrowth)
	}
	return r.finish(cmd.JSON)
}

// signInOperator makes the fleet's owner an operator of the platform and signs them in.
func signInOperator(ctx context.Context, f *fleet) (*http.Client, error) {
	if err := execMaster(ctx, f, `UPDATE users SET role = 'admin', email_verified = true`); err != nil {
		return nil, err
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	browser := &http.Client{Jar: jar}
	form := url.Values{"email": {"owner@bench.example"}, "password": {"many-shops-under-1-roof"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+f.address+"/signin", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := browser.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("sign-in: %s", res.Status)
	}
	return browser, nil
}

func execMaster(ctx context.Context, f *fleet, statement string, args ...any) error {
	conn, err := pgx.Connect(ctx, f.master)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement, args...)
	return errors.Join(err, conn.Close(ctx))
}

// addStores enters active stores into the master until there are n. Their databases do
// not exist: a list opens none. One in ten has an older schema than the fleet's first
// store, whose database exists; of one in fifty the last migration failed.
const addStores = `
	WITH owner AS (SELECT id FROM users ORDER BY created_at LIMIT 1),
	added AS (INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
		SELECT gen_random_uuid(), 'fleet-' || lpad(n::text, 5, '0'), 'Store ' || n, CASE WHEN n % 100 = 0 THEN 'suspended' ELSE 'active' END,
			owner.id, now(), now() FROM owner, generate_series((SELECT count(*) FROM stores), $1 - 1) n RETURNING id, slug),
	first AS (SELECT schema_version FROM store_databases ORDER BY created_at LIMIT 1),
	numbered AS (SELECT id, slug, right(slug, 5)::int AS n FROM added),
	dbs AS (INSERT INTO store_databases (store_id, kind, engine, host, port, database_name, credentials, credential_version, schema_version, status,
			migration_attempts, migration_error, migration_message, migrated_at, created_at, updated_at)
		SELECT id, 'postgresql', 'postgresql', 'db' || n % 40 || '.bench.example', 5432, slug, 'none', 1,
			schema_version - CASE WHEN n % 10 = 0 THEN 1 + n / 10 % 3 ELSE 0 END, CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'ok' END,
			CASE WHEN n % 50 = 0 THEN 3 ELSE 0 END, CASE WHEN n % 50 = 0 THEN 'tenant_error' END,
			CASE WHEN n % 50 = 0 THEN 'permission denied for schema public' END, now(), now(), now() FROM numbered, first),
	members AS (INSERT INTO store_members (store_id, user_id, role, created_at) SELECT added.id, owner.id, 'owner', now() FROM added, owner),
	names AS (INSERT INTO store_hostnames (hostname, store_id, is_primary, custom, created_at) SELECT slug || '.bench.example', id, true, false, now() FROM added)
	INSERT INTO credit_balances (store_id, updated_at) SELECT id, now() FROM added`

// addJobs enters ten jobs for each of n stores: eight that are completed, one that failed
// for good and one that is tried again tomorrow, so that none runs while pages are measured.
const addJobs = `
	INSERT INTO river_job (kind, args, queue, state, attempt, max_attempts, priority, errors, created_at, attempted_at, scheduled_at, finalized_at)
	SELECT (ARRAY['mail.send', 'stores.sync_credits', 'backups.make', 'bench'])[1 + n % 4], jsonb_build_object('n', n), 'default', state::river_job_state, 3, 25, 1,
		CASE WHEN state <> 'completed' THEN ARRAY[jsonb_build_object('at', now(), 'attempt', 3, 'error', 'connection refused', 'trace', '')] END,
		now(), now(), CASE WHEN state = 'retryable' THEN now() + interval '1 day' ELSE now() END, CASE WHEN state <> 'retryable' THEN now() END
	FROM generate_series((SELECT count(*) FROM river_job), 10 * $1::bigint) n,
		LATERAL (SELECT CASE n % 10 WHEN 0 THEN 'discarded' WHEN 1 THEN 'retryable' ELSE 'completed' END AS state) s`

// measure grows the fleet to n stores and returns the median time of each page.
func (cmd operatorCmd) measure(ctx context.Context, f *fleet, browser *http.Client, n int) ([]time.Duration, error) {
	progress("entering %d stores", n)
	if err := execMaster(ctx, f, addStores, n); err != nil {
		return nil, err
	}
	if err := execMaster(ctx, f, addJobs, n); err != nil {
		return nil, err
	}
	if err := execMaster(ctx, f, `ANALYZE`); err != nil {
		return nil, err
	}
	medians := make([]time.Duration, len(operatorPages))
	for i, p := range operatorPages {
		var took []time.Duration
		for range cmd.Requests {
			begin := time.Now()
			if err := getPage(ctx, browser, "http://"+f.address+p.path); err != nil {
				return nil, err
			}
			took = append(took, time.Since(begin))
		}
		slices.Sort(took)
		medians[i] = took[len(took)/2]
	}
	return medians, nil
}

func getPage(ctx context.Context, browser *http.Client, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	return readPage(browser, req)
}

// readPage sends the request and reads its answer to the end. It fails unless that is OK.
func readPage(client *http.Client, req *http.Request) error {
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", req.URL, res.Status)
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}
