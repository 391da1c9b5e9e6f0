-- +goose Up

-- Transactions of credits that were published together. The ledger's rows are their events, so
-- that a publication writes one row for each account, however many transactions it publishes.
-- Their positions follow each other, as their numbers do.
CREATE TABLE event_ranges (
    store_id       uuid        NOT NULL REFERENCES stores (id),
    first_position bigint      NOT NULL UNIQUE, -- of the first transaction; the platform's events are read by it
    last_position  bigint      NOT NULL, -- of the last transaction; a store's events are read by it
    last_seq       bigint      NOT NULL, -- the number of the last transaction in its account
    created_at     timestamptz NOT NULL,
    PRIMARY KEY (store_id, last_position),
    CHECK (first_position <= last_position)
);
CREATE INDEX event_ranges_created ON event_ranges (created_at);

-- FALSE: transactions are still copied to events, which the release before this one reads. It
-- is TRUE on a master that this release, or a later one, has made. The next migration of events
-- sets it, and drops the column in the release after it.
ALTER TABLE event_stream ADD COLUMN ranges boolean NOT NULL DEFAULT FALSE;
