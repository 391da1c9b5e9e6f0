-- +goose Up

-- The processes that work on this database. A process is present while it
-- holds the lock on the file named after it beside the database.
CREATE TABLE processes (
    name       text      NOT NULL PRIMARY KEY,
    host       text      NOT NULL,
    lock_key   integer   NOT NULL,
    beats      integer   NOT NULL DEFAULT 0,
    started_at timestamp NOT NULL
);

-- What transactions have notified, for other processes. There is one writer at
-- a time, so ids rise in the order of the commits.
CREATE TABLE change_log (
    id      integer   PRIMARY KEY AUTOINCREMENT,
    origin  text      NOT NULL, -- the process that has told itself already
    topic   text      NOT NULL,
    payload text      NOT NULL,
    at      timestamp NOT NULL
);
CREATE INDEX change_log_at ON change_log (at);
