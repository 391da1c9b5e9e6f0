package webhooks

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
)

// unpublished is what has no position: a recorded event, a transaction of the ledger that is to be
// a row of events, or, without a type, transactions that are to be a range.
type unpublished struct {
	Stream       int64         // the last position that was given
	Account      *stoa.StoreID // of the transactions; nil: it is a recorded event
	Transactions int64         // of a range, up to Sequence
	credits.Transaction
}

// The queries of readUnpublished. The recorded events come first, in their order, then the
// transactions of each account.
var (
	unpublishedPostgres = unpublishedQuery(` = ANY ($2::uuid[])`,
		`CROSS JOIN LATERAL (SELECT `+credits.TransactionColumns+` FROM credit_transactions WHERE store_id = b.store_id AND seq > coalesce(p.seq, 0) ORDER BY seq LIMIT $1) t`)
	unpublishedLite = unpublishedQuery(` IN (SELECT value FROM json_each($2))`,
		`JOIN (SELECT `+credits.TransactionColumns+` FROM credit_transactions) t ON t.store_id = b.store_id AND t.seq > coalesce(p.seq, 0)`)
)

// unpublishedQuery returns the query. in is the condition of the accounts, and join adds the
// transactions t of each account b after those that p says are published.
func unpublishedQuery(in, join string) string {
	const accounts, ranges = ` FROM credit_balances b LEFT JOIN published_credits p ON p.store_id = b.store_id `, `(SELECT ranges FROM event_stream WHERE id = 1)`
	return `SELECT (SELECT position FROM event_stream WHERE id = 1) AS stream, u.* FROM (
		SELECT * FROM (SELECT b.store_id AS account, 1 AS transactions, t.*` + accounts + join + `
			WHERE NOT ` + ranges + ` AND b.store_id` + in + ` ORDER BY b.store_id, t.seq LIMIT $1) told
		UNION ALL
		SELECT b.store_id, b.seq - coalesce(p.seq, 0), NULL, b.store_id, b.seq, '', 0, 0, 0, NULL, NULL, NULL, '', NULL, NULL, NULL, b.updated_at` + accounts + `
			WHERE ` + ranges + ` AND b.seq > coalesce(p.seq, 0) AND b.store_id` + in + `
		UNION ALL
		SELECT NULL, 0, r.id, r.store_id, 0, r.type, 0, 0, 0, NULL, NULL, NULL, '', NULL, r.user_id, NULL, r.created_at
			FROM (SELECT * FROM events WHERE position IS NULL AND type <> 'webhook.test' ORDER BY id LIMIT $1) r
	) u ORDER BY account NULLS FIRST, seq, id`
}

// readUnpublished reads up to publishBatch recorded events, and the ranges of the accounts or as
// many of their transactions. The ledger's rows are the record of its events: their numbers have
// no gaps, so that none is lost or told twice.
func readUnpublished(ctx context.Context, q masterdb.Querier, engine masterdb.Engine, accounts []stoa.StoreID) (found []unpublished, err error) {
	if engine == masterdb.Postgres {
		err = q.Select(ctx, &found, unpublishedPostgres, publishBatch, accounts)
		return found, err
	}
	list, err := json.Marshal(accounts)
	if err != nil {
		return nil, err
	}
	err = q.Select(ctx, &found, unpublishedLite, publishBatch, string(list))
	return found, err
}

// The statements that write a batch: its position of the stream, the ledger's ranges or events, the
// recorded events, how far each account is published, and the endpoints that the events are for.
// Endpoints that fail stay due when they were: they go on when their pause is over. $1 is the
// time, $2 and $3 are the positions before and after, $4 and $5 the events and the accounts.
const (
	moveStream = `UPDATE event_stream SET position = $3 WHERE id = 1 AND position = $2`
	addTold    = `INSERT INTO events (id, position, store_id, user_id, type, data, created_at)
		SELECT t.id, e.position, t.store_id, t.user_id, e.type, e.data, t.created_at FROM {events} JOIN credit_transactions t ON t.id = e.id WHERE {moved}`
	addRanges = `INSERT INTO event_ranges (store_id, first_position, last_position, last_seq, created_at)
		SELECT a.store_id, a.position - a.transactions + 1, a.position, a.seq, $1 FROM {accounts} WHERE a.transactions > 0 AND {moved}`
	placeRecorded = `UPDATE events SET position = e.position FROM {events} WHERE events.id = e.id AND e.type IS NULL AND {moved}`
	markAccounts  = `INSERT INTO published_credits (store_id, seq) SELECT a.store_id, a.seq FROM {accounts} WHERE a.seq > 0 AND {moved}
		ON CONFLICT (store_id) DO UPDATE SET seq = excluded.seq`
	wakeEndpoints = `UPDATE webhook_endpoints SET last_position = d.last, next_at = CASE WHEN failures = 0 THEN $1 ELSE next_at END
		FROM (SELECT w.id AS woken, a.position AS last FROM {accounts} JOIN webhook_endpoints w ON w.store_id = a.store_id
			UNION ALL SELECT id, CAST($3 AS bigint) FROM webhook_endpoints WHERE store_id IS NULL) d
		WHERE id = d.woken AND state <> 'deleted' AND {moved}`
)

// postgresStatement is the statements in one. The others do nothing unless the first has moved the
// stream from the position that was read. PostgreSQL checks that again after it has waited for
// another publisher; what is published changes with the position only, so that it matters not
// that the others see the rows as they were when the statement began.
var postgresStatement = strings.NewReplacer(
	`{events}`, `json_to_recordset(CAST($4 AS json)) AS e (id uuid, position bigint, type text, data text)`,
	`{accounts}`, `json_to_recordset(CAST($5 AS json)) AS a (store_id uuid, position bigint, seq bigint, transactions bigint)`,
	`{moved}`, `EXISTS (SELECT 1 FROM moved)`,
).Replace(`WITH moved AS (` + moveStream + ` RETURNING id), told AS (` + addTold + `), ranges AS (` + addRanges + `), placed AS (` + placeRecorded + `), marked AS (` + markAccounts + `),
	woken AS (` + wakeEndpoints + ` RETURNING state, next_at)
	SELECT EXISTS (SELECT 1 FROM moved) AS written, EXISTS (SELECT 1 FROM woken WHERE state = 'enabled' AND next_at <= $1)
		OR EXISTS (` + dueEndpoint + `) AS due`)

// liteStatements are the statements for SQLite, where no statement contains others that write, and
// the transaction has the database for itself.
var liteStatements = func() (statements []string) {
	sources := strings.NewReplacer(
		`{events}`, `(SELECT value ->> 'id' AS id, value ->> 'position' AS position, value ->> 'type' AS type, value ->> 'data' AS data FROM json_each($4)) e`,
		`{accounts}`, `(SELECT value ->> 'store_id' AS store_id, value ->> 'position' AS position, value ->> 'seq' AS seq, value ->> 'transactions' AS transactions FROM json_each($5)) a`,
		`{moved}`, `TRUE`,
	)
	for _, statement := range []string{moveStream, addTold, addRanges, placeRecorded, markAccounts, wakeEndpoints} {
		statements = append(statements, sources.Replace(statement))
	}
	return statements
}()

func (b *batch) args(now time.Time) ([]any, error) {
	events, err := json.Marshal(b.events)
	if err != nil {
		return nil, err
	}
	accounts, err := json.Marshal(slices.Collect(maps.Values(b.accounts)))
	return []any{now, b.before, b.after, string(events), string(accounts)}, err
}

// write writes the batch on PostgreSQL. It reports false when another publisher has given
// positions since the batch was read.
func (b *batch) write(ctx context.Context, q masterdb.Querier, now time.Time) (written bool, err error) {
	args, err := b.args(now)
	if err != nil {
		return false, err
	}
	var done struct{ Written, Due bool }
	err = q.Get(ctx, &done, postgresStatement, args...)
	b.due = done.Due
	return done.Written, err
}

// writeLite writes the batch on SQLite.
func (b *batch) writeLite(ctx context.Context, tx *masterdb.Tx) error {
	args, err := b.args(tx.Now)
	for i := 0; i < len(liteStatements) && err == nil; i++ {
		_, err = tx.Exec(ctx, liteStatements[i], args...)
	}
	return err
}
