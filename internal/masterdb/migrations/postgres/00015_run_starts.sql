-- +goose Up

-- How many executions of a run have begun that neither ended nor finished a
-- step: all but one of them died with their process.
ALTER TABLE provisioning_runs
    ADD COLUMN unended_starts integer NOT NULL DEFAULT 0;

-- The same for migrations of a store's database, and when the last one began.
ALTER TABLE store_databases
    ADD COLUMN migration_starts     integer NOT NULL DEFAULT 0,
    ADD COLUMN migration_started_at timestamptz;
