-- +goose Up

-- Moves of a store's database to another one. An older release would not continue in the new
-- database when the old one is fenced, so it no longer runs on this schema.
CREATE TABLE store_moves (
    id                 text      NOT NULL PRIMARY KEY,
    store_id           text      NOT NULL REFERENCES stores (id),
    state              text      NOT NULL CHECK (state IN ('running', 'kept', 'succeeded', 'failed', 'aborted', 'rolled_back')),
    step               text      NOT NULL, -- '' after the end
    wish               text      NOT NULL DEFAULT '' CHECK (wish IN ('', 'abort', 'rollback', 'finish')),
    schema_version     integer   NOT NULL,
    source_kind        text      NOT NULL,
    source_engine      text      NOT NULL,
    source_host        text      NOT NULL,
    source_port        integer   NOT NULL,
    source_name        text      NOT NULL,
    source_credentials text      NOT NULL, -- sealed; '' after the end
    target_kind        text      NOT NULL,
    target_engine      text      NOT NULL,
    target_host        text      NOT NULL,
    target_port        integer   NOT NULL,
    target_name        text      NOT NULL,
    target_credentials text      NOT NULL, -- sealed; '' after the end
    rows_copied        integer   NOT NULL DEFAULT 0,
    changes            integer   NOT NULL DEFAULT 0, -- entries of the journal that were written to the target
    frozen_ms          integer, -- how long writers had to wait
    executions         integer   NOT NULL DEFAULT 0, -- of the step
    error_code         text,
    error_message      text,
    claimed_by         text,
    claimed_until      timestamp,
    created_at         timestamp NOT NULL,
    swapped_at         timestamp,
    keep_until         timestamp, -- until when the move can be rolled back
    finished_at        timestamp
);
-- One move at a time for each store, whatever the callers do.
CREATE UNIQUE INDEX store_moves_one_open ON store_moves (store_id) WHERE finished_at IS NULL;
CREATE INDEX store_moves_claims ON store_moves (claimed_until) WHERE finished_at IS NULL;
CREATE INDEX store_moves_store ON store_moves (store_id, id);
CREATE INDEX store_moves_finished ON store_moves (finished_at);

UPDATE schema_compatibility SET oldest_binary = 37;
