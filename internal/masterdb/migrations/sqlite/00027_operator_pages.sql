-- +goose Up

-- A suspended user has no access until an operator ends the suspension. Their stores
-- stay open.
ALTER TABLE users ADD COLUMN suspended_at timestamp;
ALTER TABLE users ADD COLUMN suspended_by text REFERENCES users (id);
ALTER TABLE users ADD COLUMN suspension_changed_at timestamp;
ALTER TABLE users ADD COLUMN suspension_reason text NOT NULL DEFAULT '';
CREATE INDEX users_suspended ON users (id) WHERE suspended_at IS NOT NULL;
CREATE INDEX users_operators ON users (id) WHERE role = 'admin';

-- Lists of all stores by state, newest first.
CREATE INDEX provisioning_runs_state ON provisioning_runs (state, id);
CREATE INDEX audit_events_action ON audit_events (action, id);
