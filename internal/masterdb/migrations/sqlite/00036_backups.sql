-- +goose Up

-- The key of each store's archives, encrypted. Without it they can be opened with the
-- identities of the operator only.
CREATE TABLE archive_keys (
    store_id   text NOT NULL PRIMARY KEY REFERENCES stores (id),
    sealed     text NOT NULL,
    created_at timestamp NOT NULL
);

-- The archives of stores. The lease (claimed_by, claimed_until) belongs to the execution
-- that makes, checks or deletes the archive.
CREATE TABLE backups (
    id             text NOT NULL PRIMARY KEY,
    store_id       text NOT NULL REFERENCES stores (id),
    origin         text NOT NULL CHECK (origin IN ('request', 'schedule', 'restore', 'upload')),
    state          text NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'deleting')),
    attempt        integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    name           text NOT NULL DEFAULT '', -- in the storage
    bytes          integer NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    row_count      integer NOT NULL DEFAULT 0 CHECK (row_count >= 0),
    manifest       text NOT NULL DEFAULT '{}', -- JSON
    tables_done    integer NOT NULL DEFAULT 0 CHECK (tables_done >= 0),
    error_code     text,
    error_message  text,
    created_by     text REFERENCES users (id), -- NULL: the platform
    created_at     timestamp NOT NULL,
    finished_at    timestamp,
    snapshot_at    timestamp,
    keep_until     timestamp, -- NULL: no time; the schedule or its owner decides
    check_state    text NOT NULL DEFAULT 'none' CHECK (check_state IN ('none', 'queued', 'passed', 'failed')),
    check_restored boolean NOT NULL DEFAULT FALSE, -- the check has restored it and compared the rows
    check_message  text,
    check_ms       integer,
    checked_at     timestamp,
    claimed_by     text,
    claimed_until  timestamp
);
CREATE INDEX backups_store ON backups (store_id, id);
CREATE INDEX backups_unfinished ON backups (state, origin) WHERE state IN ('queued', 'running', 'deleting');
CREATE INDEX backups_keep_until ON backups (keep_until) WHERE keep_until IS NOT NULL;
CREATE INDEX backups_created_by ON backups (created_by) WHERE created_by IS NOT NULL;
CREATE INDEX backups_claims ON backups (claimed_by) WHERE claimed_by IS NOT NULL;

-- When each store's next archive is due. Without numbers of its own, a store has those of
-- the platform's setting.
CREATE TABLE backup_schedules (
    store_id text NOT NULL PRIMARY KEY REFERENCES stores (id),
    next_at  timestamp NOT NULL,
    own      boolean NOT NULL DEFAULT FALSE,
    hourly   integer NOT NULL DEFAULT 0 CHECK (hourly BETWEEN 0 AND 1000),
    daily    integer NOT NULL DEFAULT 0 CHECK (daily BETWEEN 0 AND 1000),
    weekly   integer NOT NULL DEFAULT 0 CHECK (weekly BETWEEN 0 AND 1000),
    monthly  integer NOT NULL DEFAULT 0 CHECK (monthly BETWEEN 0 AND 1000)
);
CREATE INDEX backup_schedules_next ON backup_schedules (next_at);

-- Archives that are loaded into a store's database: the store's own, or for a clone that of
-- another store.
CREATE TABLE backup_restores (
    id            text NOT NULL PRIMARY KEY,
    store_id      text NOT NULL REFERENCES stores (id), -- that gets the rows
    backup_id     text NOT NULL, -- it may be deleted later
    source_id     text NOT NULL REFERENCES stores (id), -- whose archive it is
    state         text NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed')),
    step          text NOT NULL,
    attempt       integer NOT NULL DEFAULT 0 CHECK (attempt >= 0), -- of the step
    without       text NOT NULL DEFAULT '', -- what a clone leaves out, separated by commas
    unsaved       boolean NOT NULL DEFAULT FALSE, -- the present rows are not archived first
    saved_id      text, -- the archive of the rows that were there before
    error_code    text,
    error_message text,
    created_by    text REFERENCES users (id),
    created_at    timestamp NOT NULL,
    finished_at   timestamp,
    claimed_by    text,
    claimed_until timestamp
);
CREATE INDEX backup_restores_store ON backup_restores (store_id, id);
CREATE INDEX backup_restores_source ON backup_restores (source_id);
CREATE INDEX backup_restores_created_by ON backup_restores (created_by) WHERE created_by IS NOT NULL;
CREATE INDEX backup_restores_finished ON backup_restores (finished_at);
CREATE INDEX backup_restores_claims ON backup_restores (claimed_by) WHERE claimed_by IS NOT NULL;
-- One at a time for a store.
CREATE UNIQUE INDEX backup_restores_unfinished ON backup_restores (store_id) WHERE state IN ('queued', 'running');

-- While an archive is loaded, nobody else uses the store's database.
ALTER TABLE store_databases ADD COLUMN restoring boolean NOT NULL DEFAULT FALSE;
