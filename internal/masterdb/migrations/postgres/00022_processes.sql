-- +goose Up

-- The processes that work on this database. A process is present while its
-- session holds the advisory lock lock_key; beats rises while the process runs.
CREATE TABLE processes (
    name       text        NOT NULL PRIMARY KEY,
    host       text        NOT NULL,
    lock_key   integer     NOT NULL,
    beats      bigint      NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- What transactions have notified, for processes that receive no notifications.
-- at is the server's time just before the commit.
CREATE TABLE change_log (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    origin  text        NOT NULL, -- the process that has told itself already
    topic   text        NOT NULL,
    payload text        NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX change_log_at ON change_log (at);
