-- +goose Up

-- The counts of a large fleet, which a job renews: one row.
CREATE TABLE store_counts (
    id         integer NOT NULL PRIMARY KEY CHECK (id = 1),
    counts     text NOT NULL, -- JSON
    counted_at timestamp NOT NULL
);
