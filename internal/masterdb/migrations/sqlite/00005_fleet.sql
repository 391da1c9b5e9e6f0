-- +goose Up

-- How the last migration of each store's database ended. The attempts are
-- those since the last that went well.
ALTER TABLE store_databases ADD COLUMN own_version        integer NOT NULL DEFAULT 0;
ALTER TABLE store_databases ADD COLUMN migration_attempts integer NOT NULL DEFAULT 0;
ALTER TABLE store_databases ADD COLUMN migration_error    text;
ALTER TABLE store_databases ADD COLUMN migration_message  text;
ALTER TABLE store_databases ADD COLUMN migrated_at        timestamp;
