-- +goose NO TRANSACTION
-- +goose Up

-- Indexes are made without locking the tables of a running platform, which no
-- transaction allows. So each statement may run again after a failure.

-- How long entries of the audit log are kept, in seconds; 0: for ever. The
-- trigger below reads it. 'stoa migrate --grant-to' gives servers no right to
-- change it.
CREATE TABLE IF NOT EXISTS audit_retention (
    one          boolean PRIMARY KEY CHECK (one),
    keep_seconds bigint  NOT NULL CHECK (keep_seconds = 0 OR keep_seconds >= 86400)
);
INSERT INTO audit_retention (one, keep_seconds) VALUES (true, 400 * 86400) ON CONFLICT DO NOTHING;

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_early_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM audit_retention WHERE keep_seconds > 0 AND OLD.created_at < now() - keep_seconds * interval '1 second') THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'rows of % are append-only until they expire', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;
-- +goose StatementEnd

-- The schema is named: a server could make a temporary table audit_retention,
-- which would come first otherwise.
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION refuse_early_delete() SET search_path = %I, pg_temp', current_schema());
    DROP TRIGGER IF EXISTS audit_events_append_only ON audit_events;
    CREATE TRIGGER audit_events_append_only BEFORE UPDATE ON audit_events
        FOR EACH ROW EXECUTE FUNCTION refuse_change();
    DROP TRIGGER IF EXISTS audit_events_kept ON audit_events;
    CREATE TRIGGER audit_events_kept BEFORE DELETE ON audit_events
        FOR EACH ROW EXECUTE FUNCTION refuse_early_delete();
END
$$;
-- +goose StatementEnd

-- What has expired is found by these: docs/retention.md. An index whose making
-- has failed is there, but of no use.
DROP INDEX CONCURRENTLY IF EXISTS audit_events_created;
CREATE INDEX CONCURRENTLY audit_events_created ON audit_events (created_at);
DROP INDEX CONCURRENTLY IF EXISTS refresh_tokens_spent;
CREATE INDEX CONCURRENTLY refresh_tokens_spent ON refresh_tokens (spent_at) WHERE spent_at IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS second_factors_unconfirmed;
CREATE INDEX CONCURRENTLY second_factors_unconfirmed ON second_factors (created_at) WHERE confirmed_at IS NULL;
DROP INDEX CONCURRENTLY IF EXISTS invitations_expiry;
CREATE INDEX CONCURRENTLY invitations_expiry ON invitations (expires_at);
DROP INDEX CONCURRENTLY IF EXISTS api_keys_revoked;
CREATE INDEX CONCURRENTLY api_keys_revoked ON api_keys (revoked_at) WHERE revoked_at IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS api_keys_expiry;
CREATE INDEX CONCURRENTLY api_keys_expiry ON api_keys (expires_at) WHERE expires_at IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS stripe_events_applied;
CREATE INDEX CONCURRENTLY stripe_events_applied ON stripe_events (applied_at) WHERE applied_at IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS credit_crossings_announced;
CREATE INDEX CONCURRENTLY credit_crossings_announced ON credit_crossings (announced_at) WHERE announced_at IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS provisioning_runs_finished;
CREATE INDEX CONCURRENTLY provisioning_runs_finished ON provisioning_runs (finished_at) WHERE finished_at IS NOT NULL;
