-- +goose Up

-- How long entries of the audit log are kept, in seconds; 0: for ever. The
-- trigger below reads it.
CREATE TABLE audit_retention (
    one          boolean NOT NULL PRIMARY KEY CHECK (one),
    keep_seconds bigint  NOT NULL CHECK (keep_seconds = 0 OR keep_seconds >= 86400)
);
INSERT INTO audit_retention (one, keep_seconds) VALUES (true, 400 * 86400);

DROP TRIGGER audit_events_no_delete;
-- +goose StatementBegin
CREATE TRIGGER audit_events_kept BEFORE DELETE ON audit_events
BEGIN
    SELECT RAISE(ABORT, 'rows of audit_events are append-only until they expire')
    WHERE NOT EXISTS (SELECT 1 FROM audit_retention
        WHERE keep_seconds > 0 AND OLD.created_at < strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || keep_seconds || ' seconds'));
END;
-- +goose StatementEnd

-- What has expired is found by these: docs/retention.md.
CREATE INDEX audit_events_created ON audit_events (created_at);
CREATE INDEX refresh_tokens_spent ON refresh_tokens (spent_at) WHERE spent_at IS NOT NULL;
CREATE INDEX second_factors_unconfirmed ON second_factors (created_at) WHERE confirmed_at IS NULL;
CREATE INDEX invitations_expiry ON invitations (expires_at);
CREATE INDEX api_keys_revoked ON api_keys (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX api_keys_expiry ON api_keys (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX stripe_events_applied ON stripe_events (applied_at) WHERE applied_at IS NOT NULL;
CREATE INDEX credit_crossings_announced ON credit_crossings (announced_at) WHERE announced_at IS NOT NULL;
CREATE INDEX provisioning_runs_finished ON provisioning_runs (finished_at) WHERE finished_at IS NOT NULL;
