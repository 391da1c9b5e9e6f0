-- +goose Up

-- The oldest release that may run on this schema, named by the number of the
-- last migration that it brings. A migration after which older releases would
-- fail, or write what is wrong, raises the number to its own; any other leaves
-- it. This statement covers the job queue's tables and the schema of the
-- stores' databases too: they change with a release, after the master.
CREATE TABLE schema_compatibility (
    one           boolean PRIMARY KEY CHECK (one),
    oldest_binary bigint  NOT NULL CHECK (oldest_binary > 0)
);
INSERT INTO schema_compatibility (one, oldest_binary) VALUES (true, 20);
