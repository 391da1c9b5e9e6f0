-- +goose Up

-- The operator's list of the stores whose last migration failed, in the order of their ids.
CREATE INDEX store_databases_unmigrated ON store_databases (store_id) WHERE migration_error IS NOT NULL OR migration_starts > 0;
