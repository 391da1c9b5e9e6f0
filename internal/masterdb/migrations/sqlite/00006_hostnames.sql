-- +goose Up

-- What a store says is its own. Several stores may claim one name; the one
-- that proves it first has a row in store_hostnames besides. The claim stays
-- beside that: its token is looked for every day.

CREATE TABLE hostname_claims (
    store_id    text        NOT NULL REFERENCES stores (id) ON DELETE CASCADE,
    hostname    text        NOT NULL CHECK (length(hostname) BETWEEN 1 AND 247 AND hostname = lower(hostname)),
    token       text        NOT NULL CHECK (length(token) >= 20),
    created_at  timestamp   NOT NULL,
    expires_at  timestamp, -- unless it is proven
    asked_at    timestamp, -- when a member last asked for a check
    checked_at  timestamp,
    check_after timestamp   NOT NULL, -- of a proven one
    fault       text        CHECK (fault IN ('record_not_found', 'record_mismatch', 'dns_unavailable')),
    misses      integer     NOT NULL DEFAULT 0 CHECK (misses >= 0), -- daily checks in a row that found no record
    PRIMARY KEY (store_id, hostname)
);
CREATE INDEX hostname_claims_expiry ON hostname_claims (expires_at);
CREATE INDEX hostname_claims_due ON hostname_claims (check_after) WHERE expires_at IS NULL;
