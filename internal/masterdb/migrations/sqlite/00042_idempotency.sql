-- +goose Up

-- Calls with an Idempotency-Key, for 24 hours. The sealed value is the hash of the request
-- and, when the call has ended, its answer.
CREATE TABLE idempotency_keys (
    id            text      NOT NULL PRIMARY KEY,
    caller        text      NOT NULL, -- user:… or key:…
    key_hash      text      NOT NULL,
    sealed        text      NOT NULL,
    claimed_by    text,      -- the request that carries the call out; null when it has ended
    claimed_until timestamp,
    created_at    timestamp NOT NULL,
    UNIQUE (caller, key_hash)
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);
