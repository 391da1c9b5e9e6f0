-- +goose Up

-- Who works on a run, and until when that holds unless it is renewed. Without
-- claimed_by the run waits for its job, which has until claimed_until to begin.
ALTER TABLE provisioning_runs ADD COLUMN claimed_by text;
ALTER TABLE provisioning_runs ADD COLUMN claimed_until timestamptz;
CREATE INDEX provisioning_runs_claims ON provisioning_runs (claimed_until) WHERE state IN ('queued', 'running');

-- How many changes of the run were recorded: the last seq of its events.
ALTER TABLE provisioning_runs ADD COLUMN changes bigint NOT NULL DEFAULT 0 CHECK (changes >= 0);

-- Each change of a run as it was, so that who follows it misses none. step is
-- empty when the run itself changed; state and error are then the run's.
CREATE TABLE provisioning_events (
    run_id        uuid        NOT NULL REFERENCES provisioning_runs (id) ON DELETE CASCADE,
    seq           bigint      NOT NULL CHECK (seq > 0),
    attempt       integer     NOT NULL,
    step          text        NOT NULL,
    state         text        NOT NULL CHECK (state IN ('queued', 'pending', 'running', 'succeeded', 'failed')),
    error_code    text,
    error_message text,
    created_at    timestamptz NOT NULL,
    PRIMARY KEY (run_id, seq)
);
INSERT INTO provisioning_events (run_id, seq, attempt, step, state, error_code, error_message, created_at)
    SELECT id, 1, attempt, '', state, error_code, error_message, coalesce(finished_at, started_at, created_at) FROM provisioning_runs;
UPDATE provisioning_runs SET changes = 1;
