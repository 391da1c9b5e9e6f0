-- +goose Up

-- How far an archive, the step of a restore, and the copy of a move are. 0 in a total: not known.
ALTER TABLE backups ADD COLUMN tables_total bigint NOT NULL DEFAULT 0;
ALTER TABLE backups ADD COLUMN rows_done bigint NOT NULL DEFAULT 0;
ALTER TABLE backup_restores ADD COLUMN rows_done bigint NOT NULL DEFAULT 0;
ALTER TABLE backup_restores ADD COLUMN rows_total bigint NOT NULL DEFAULT 0;
ALTER TABLE store_moves ADD COLUMN rows_total bigint NOT NULL DEFAULT 0;
