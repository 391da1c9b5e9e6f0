package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// These are the rows that one generated store has, beside those of which each store has
// one. They are fewer than those of a store that is years old, so that a hundred thousand
// stores are made in minutes: what counts is the size of a row.
const (
	storeTransactions = 10
	storeEvents       = 5
	storeAudit        = 8
	storeRunEvents    = 19 // what the connection of one database leaves behind
	storeBackups      = 3
	storeHours        = 12 // of traffic
	storeJobs         = 2
	storeTokens       = 3
	ownedStores       = 100 // of the benchmark's owner; the default quota
)

// fillFunctions make the ids of rows: UUIDs of version 7 that grow with the number of the
// store, as those of real rows grow with time. The same number gives the same id, so that
// no statement has to look up what another one has made.
const fillFunctions = `
	CREATE FUNCTION pg_temp.made(n bigint, k bigint) RETURNS timestamptz LANGUAGE sql STABLE AS
		$$SELECT date_trunc('day', now()) - interval '20 days' + make_interval(secs => k * 40000 + n * 0.2)$$;
	CREATE FUNCTION pg_temp.id(kind text, n bigint, k bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
		$$SELECT (lpad(to_hex(1735689600000 + k * 100000000 + n * 100), 12, '0') || '7' || substr(md5(kind || n || '.' || k), 1, 3)
			|| '8' || substr(md5(kind || n || '.' || k), 4, 15))::uuid$$;
	CREATE FUNCTION pg_temp.text(n bigint, length int) RETURNS text LANGUAGE sql IMMUTABLE AS
		$$SELECT substr(string_agg(md5(n || ':' || i), ''), 1, length) FROM generate_series(0, length / 32) i$$`

// fill is a statement for each table. n are the numbers of the stores that are added, k the
// rows of one store; the rows of a store are as far apart as those of one that has grown.
// Nothing of it is due: no archive, no check of a hostname, no copy of credits.
var fill = []struct {
	rows int // of one store: the highest k; LAST is that of credit_transactions
	sql  string
	only string // condition of the stores that have such a row; empty: all
}{
	{1, `INSERT INTO users (id, email, password_hash, first_name, last_name, email_verified, created_at, updated_at)
		SELECT person, 'owner-' || n || '@shops.example', '$argon2id$v=19$m=19456,t=2,p=1$' || pg_temp.text(n, 65), 'First' || n % 900, 'Last' || n % 7000, true, pg_temp.made(n, 0), pg_temp.made(n, 0)`, ``},
	{1, `INSERT INTO sessions (id, user_id, user_agent, address, created_at, last_used_at, expires_at)
		SELECT pg_temp.id('s', n, 0), person, 'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0', '203.0.113.' || n % 250, pg_temp.made(n, 0), pg_temp.made(n, 1), now() + interval '20 days'`, ``},
	{storeTokens, `INSERT INTO refresh_tokens (hash, session_id, created_at, spent_at)
		SELECT md5('a' || n || '.' || k) || md5('b' || n || '.' || k), pg_temp.id('s', n, 0), pg_temp.made(n, k), CASE WHEN k > 1 THEN pg_temp.made(n, k) END`, ``},
	{1, `INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
		SELECT store, 'shop-' || lpad(n::text, 7, '0'), 'Shop ' || n, CASE WHEN n % 100 = 0 THEN 'suspended' ELSE 'active' END, owner, pg_temp.made(n, 0), pg_temp.made(n, 0)`, ``},
	{1, `INSERT INTO store_databases (store_id, kind, engine, host, port, database_name, credentials, credential_version, schema_version, status,
			migration_attempts, migration_error, migration_message, migrated_at, created_at, updated_at, last_checked_at)
		SELECT store, CASE WHEN n % 10 = 9 THEN 'mysql' ELSE 'managed' END, (ARRAY['sqlite', 'sqlite', 'sqlite', 'sqlite', 'sqlite', 'sqlite', 'postgresql', 'postgresql', 'postgresql', 'mysql'])[1 + n % 10],
			CASE WHEN n % 10 < 6 THEN '' ELSE 'db' || n % 200 || '.shops.example' END, CASE WHEN n % 10 < 6 THEN 0 WHEN n % 10 < 9 THEN 5432 ELSE 3306 END, 'shop_' || n,
			'v1.bench.' || pg_temp.text(n, CASE WHEN n % 10 < 6 THEN 150 ELSE 400 END), 1, schema, CASE WHEN n % 70 = 0 THEN 'failed' ELSE 'ok' END,
			0, NULL, NULL, pg_temp.made(n, 0), pg_temp.made(n, 0), pg_temp.made(n, 0), pg_temp.made(n, 1)`, ``},
	{1, `INSERT INTO store_hostnames (hostname, store_id, is_primary, custom, verified_at, created_at)
		SELECT 'shop-' || lpad(n::text, 7, '0') || '.localhost', store, n % 10 > 0, false, pg_temp.made(n, 0), pg_temp.made(n, 0)`, ``},
	{1, `INSERT INTO store_hostnames (hostname, store_id, is_primary, custom, verified_at, created_at)
		SELECT 'www.shop-' || n || '.example', store, true, true, pg_temp.made(n, 0), pg_temp.made(n, 0)`, `n % 10 = 0`},
	{1, `INSERT INTO hostname_claims (store_id, hostname, token, created_at, checked_at, check_after)
		SELECT store, 'www.shop-' || n || '.example', md5('t' || n), pg_temp.made(n, 0), now(), now() + make_interval(hours => 20)`, `n % 10 = 0`},
	{1, `INSERT INTO store_members (store_id, user_id, role, created_at) SELECT store, owner, 'owner', pg_temp.made(n, 0)`, ``},
	{1, `INSERT INTO store_members (store_id, user_id, role, created_at) SELECT store, pg_temp.id('u', n - 1, 0), 'member', pg_temp.made(n, 1)`, `n % 3 = 0 AND n > 1`},
	{1, `INSERT INTO provisioning_runs (id, store_id, state, step, attempt, created_at, started_at, finished_at, changes)
		SELECT pg_temp.id('r', n, 0), store, 'succeeded', 'activate', 1, pg_temp.made(n, 0), pg_temp.made(n, 0), pg_temp.made(n, 0), 19`, ``},
	{storeRunEvents, `INSERT INTO provisioning_events (run_id, seq, attempt, step, state, created_at)
		SELECT pg_temp.id('r', n, 0), k, 1, 'store_record', CASE WHEN k % 2 = 0 THEN 'succeeded' ELSE 'running' END, pg_temp.made(n, 0)`, ``},
	{1, `INSERT INTO credit_balances (store_id, balance, seq, version, lifetime_spent, updated_at)
		SELECT store, 10000000 - (LAST - 1) * 10000, LAST, LAST, (LAST - 1) * 10000, pg_temp.made(n, 9)`, ``},
	{1, `INSERT INTO credit_copies (store_id, version) SELECT store, LAST`, ``},
	{1, `INSERT INTO published_credits (store_id, seq) SELECT store, LAST`, ``},
	{storeTransactions, `INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, service_key, quantity, unit_price, user_id, idempotency_key, request_hash, created_at)
		SELECT pg_temp.id('t', n, k), store, k, CASE WHEN k = 1 THEN 'adjustment' ELSE 'spend' END, CASE WHEN k = 1 THEN 10000000 ELSE -10000 END, 10000000 - (k - 1) * 10000,
			CASE WHEN k > 1 THEN 'product_import' END, CASE WHEN k > 1 THEN 1 END, CASE WHEN k > 1 THEN 10000 END, owner,
			CASE WHEN k % 2 = 0 THEN 'user:' || md5('i' || n || '.' || k) END, CASE WHEN k % 2 = 0 THEN md5('h' || n || '.' || k) || md5('g' || n || '.' || k) END, pg_temp.made(n, k)`, ``},
	{storeEvents, `INSERT INTO event_ranges (store_id, first_position, last_position, last_seq, created_at)
		SELECT store, (SELECT position FROM event_stream) + row_number() OVER (ORDER BY k, n), (SELECT position FROM event_stream) + row_number() OVER (ORDER BY k, n),
			k + 5, pg_temp.made(n, k)`, ``},
	{storeAudit, `INSERT INTO audit_events (id, user_id, store_id, action, outcome, address, request_id, details, created_at)
		SELECT pg_temp.id('a', n, k), owner, store, (ARRAY['store.updated', 'auth.signed_in', 'product.updated', 'database.connected'])[1 + k % 4], 'success', '203.0.113.' || n % 250,
			md5('q' || n || '.' || k), '{"fields":"name,theme"}', pg_temp.made(n, k)`, ``},
	{1, `INSERT INTO backup_schedules (store_id, next_at) SELECT store, now() + make_interval(hours => 12, secs => n % 40000)`, ``},
	{1, `INSERT INTO archive_keys (store_id, sealed, created_at) SELECT store, 'v1.bench.' || pg_temp.text(n, 140), pg_temp.made(n, 0)`, ``},
	{storeBackups, `INSERT INTO backups (id, store_id, origin, state, attempt, name, bytes, row_count, manifest, tables_done, created_at, finished_at, snapshot_at, check_state, check_restored, check_ms, checked_at, tables_total, rows_done)
		SELECT pg_temp.id('b', n, k), store, 'schedule', 'succeeded', 1, 'stores/' || store || '/20260101T000000Z-' || pg_temp.id('b', n, k) || '-a.stoa', 262300, 1700,
			'{"tables":[' || (SELECT string_agg('{"table":"products","rows":170,"bytes":10100,"checksum":"' || md5(n || '.' || k || '.' || i) || md5(n || ':' || k || ':' || i) || '"}', ',') FROM generate_series(1, 15) i) || ']}',
			15, pg_temp.made(n, k), pg_temp.made(n, k), pg_temp.made(n, k), 'passed', true, 48, pg_temp.made(n, k), 15, 1700`, ``},
	{storeHours, `INSERT INTO store_traffic (store_id, hour, requests, errors, total_ms, slowest_ms)
		SELECT store, date_trunc('hour', now()) - make_interval(hours => k - 1), 40 + n % 60, CASE WHEN n % 200 = 0 THEN 1 ELSE 0 END, CASE WHEN n % 150 = 0 THEN 70000 ELSE 400 END, 90`, ``},
	{storeJobs, `INSERT INTO river_job (kind, args, queue, state, attempt, max_attempts, created_at, attempted_at, attempted_by, scheduled_at, finalized_at, metadata)
		SELECT 'stores.copy_credits', jsonb_build_object('storeId', store), 'tenant', 'completed', 1, 25, now(), now(), ARRAY['TKVJJZZTIFQVXCA3ENQAKICEC7'], now(), now(), '{}'`, ``},
}

// numbers are the stores to add, with the ids that other rows refer to. The first ones belong
// to the benchmark's owner, who thus has as many as the quota allows.
const numbers = `WITH numbers AS MATERIALIZED (
	SELECT n, pg_temp.id('st', n, 0) AS store, pg_temp.id('u', n, 0) AS person, schema,
		CASE WHEN n <= %d THEN bench ELSE pg_temp.id('u', n, 0) END AS owner
	FROM generate_series(%d, %d) n, (SELECT max(schema_version) AS schema FROM store_databases) d,
		(SELECT id AS bench FROM users WHERE email = 'owner@bench.example') u)
`

// fillTo adds stores until n have been generated. at is the number of those that are there.
// It writes as an administrator: foreign keys and triggers need not be checked for each row.
func fillTo(ctx context.Context, f *fleet, at, n int) error {
	conn, err := pgx.Connect(ctx, f.databases.address(f.databases.run+"_"+master, f.databases.server.User))
	if err != nil {
		return err
	}
	return errors.Join(fillWith(ctx, conn, at, n), conn.Close(context.WithoutCancel(ctx)))
}

func fillWith(ctx context.Context, conn *pgx.Conn, at, n int) error {
	if _, err := conn.Exec(ctx, `SET session_replication_role = replica`); err != nil {
		return fmt.Errorf("only a superuser can generate rows: %w", err)
	}
	if _, err := conn.Exec(ctx, fillFunctions); err != nil {
		return err
	}
	stores := fmt.Sprintf(numbers, ownedStores, at+1, n)
	for _, table := range fill {
		statement := stores + strings.ReplaceAll(table.sql, "LAST", strconv.Itoa(storeTransactions)) +
			fmt.Sprintf(` FROM numbers, generate_series(1, %d) k`, table.rows)
		if table.only != "" {
			statement += ` WHERE ` + table.only
		}
		if _, err := conn.Exec(ctx, statement+` ORDER BY k, n`); err != nil {
			return fmt.Errorf("%.60s: %w", table.sql, err)
		}
	}
	if _, err := conn.Exec(ctx, `UPDATE event_stream SET position = greatest(position, (SELECT max(last_position) FROM event_ranges))`); err != nil {
		return err
	}
	_, err := conn.Exec(ctx, `VACUUM ANALYZE`)
	return err
}
