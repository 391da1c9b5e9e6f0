-- +goose Up

-- A store that is being deleted comes back, when it is restored, in the state
-- it had. While a run is still at work on it, that state moves on.
ALTER TABLE stores ADD COLUMN status_before text CHECK (status_before IN
    ('pending_database', 'provisioning', 'active', 'suspended'));

-- Suspended by the operator: its owner cannot resume it.
ALTER TABLE stores ADD COLUMN held boolean NOT NULL DEFAULT false;

CREATE INDEX stores_delete_after ON stores (delete_after) WHERE status = 'deleting';

-- One row, made by the first who needs it. The names of managed databases hold
-- it: on a server that two installations share, each knows its own.
CREATE TABLE installation (
    one boolean NOT NULL PRIMARY KEY CHECK (one),
    id  text    NOT NULL CHECK (length(id) = 8)
);
