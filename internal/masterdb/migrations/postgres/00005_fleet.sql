-- +goose Up

-- How the last migration of each store's database ended. The attempts are
-- those since the last that went well.
ALTER TABLE store_databases
    ADD COLUMN own_version        bigint  NOT NULL DEFAULT 0,
    ADD COLUMN migration_attempts integer NOT NULL DEFAULT 0,
    ADD COLUMN migration_error    text,
    ADD COLUMN migration_message  text,
    ADD COLUMN migrated_at        timestamptz;
