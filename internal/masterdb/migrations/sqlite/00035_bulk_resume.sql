-- +goose Up

-- Operators resume many stores at once. An older release would suspend them instead, so it
-- no longer runs on this schema.
CREATE TABLE new_bulk_actions (
    id          text      NOT NULL PRIMARY KEY,
    user_id     text      NOT NULL REFERENCES users (id),
    kind        text NOT NULL CHECK (kind IN ('suspend', 'resume', 'migrate')),
    selection   text NOT NULL, -- stores or a filter, in JSON
    state       text NOT NULL CHECK (state IN ('queued', 'running', 'finished', 'failed')),
    total       integer CHECK (total >= 0), -- stores, if it is known
    done        integer NOT NULL DEFAULT 0 CHECK (done >= 0),
    unchanged   integer NOT NULL DEFAULT 0 CHECK (unchanged >= 0), -- stores that had nothing to be done
    failed      integer NOT NULL DEFAULT 0 CHECK (failed >= 0),
    failures    text NOT NULL DEFAULT '[]', -- the first ones, in JSON
    position    text NOT NULL DEFAULT '', -- what the job has reached
    error       text, -- why it ended early
    created_at  timestamp NOT NULL,
    finished_at timestamp
);
INSERT INTO new_bulk_actions (id, user_id, kind, selection, state, total, done, unchanged, failed, failures, position, error, created_at, finished_at)
SELECT id, user_id, kind, selection, state, total, done, unchanged, failed, failures, position, error, created_at, finished_at FROM bulk_actions;
DROP TABLE bulk_actions;
ALTER TABLE new_bulk_actions RENAME TO bulk_actions;
CREATE INDEX bulk_actions_created ON bulk_actions (created_at);

UPDATE schema_compatibility SET oldest_binary = 35;
