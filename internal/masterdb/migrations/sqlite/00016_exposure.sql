-- +goose Up

-- Whether an HTTP API such as Supabase's can reach a store's tables: when that
-- was last looked at, and the code of what was wrong then. Of the merchants' own
-- databases on PostgreSQL only.
ALTER TABLE store_databases ADD COLUMN exposure_checked_at timestamp;
ALTER TABLE store_databases ADD COLUMN exposure_error text;

-- What the owner is told of a database that works, as a list in JSON.
ALTER TABLE provisioning_runs ADD COLUMN warnings text NOT NULL DEFAULT '[]';
