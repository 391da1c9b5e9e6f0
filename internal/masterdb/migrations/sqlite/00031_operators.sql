-- +goose Up

-- The verifications of the ledger that operators asked for. The job that reads the ledger
-- records its progress here.
CREATE TABLE ledger_verifications (
    id           text NOT NULL PRIMARY KEY,
    user_id      text NOT NULL REFERENCES users (id),
    state        text NOT NULL CHECK (state IN ('running', 'finished', 'failed')),
    total        integer NOT NULL DEFAULT 0 CHECK (total >= 0), -- accounts
    accounts     integer NOT NULL DEFAULT 0 CHECK (accounts >= 0), -- that were read
    transactions integer NOT NULL DEFAULT 0 CHECK (transactions >= 0),
    faults       text NOT NULL DEFAULT '[]', -- in JSON, a bounded number
    error        text NOT NULL DEFAULT '', -- why it failed
    created_at   timestamp NOT NULL,
    updated_at   timestamp NOT NULL, -- every few seconds while it runs
    finished_at  timestamp
);
CREATE INDEX ledger_verifications_created ON ledger_verifications (created_at);
-- One at a time: each reads the whole ledger.
CREATE UNIQUE INDEX ledger_verifications_running ON ledger_verifications (state) WHERE state = 'running';
