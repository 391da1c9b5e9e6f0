-- +goose Up

-- What has happened, for the owners' programs. A row is written in the transaction of what it
-- tells of. It has no position until it is published. Positions are in the order of
-- publication, so that whoever has read up to one misses no row.
CREATE TABLE events (
    id         uuid        NOT NULL PRIMARY KEY,
    position   bigint      UNIQUE,
    store_id   uuid        REFERENCES stores (id), -- NULL: of the platform
    user_id    uuid, -- who did it; NULL: the platform
    type       text        NOT NULL,
    data       text        NOT NULL, -- a JSON object
    created_at timestamptz NOT NULL
);
-- Whoever asks for a test receives it, nobody else.
CREATE INDEX events_unpublished ON events (id) WHERE position IS NULL AND type <> 'webhook.test';
CREATE INDEX events_store ON events (store_id, position);
CREATE INDEX events_created ON events (created_at);

-- The last position that was given. The lock on this row makes publishers take turns.
CREATE TABLE event_stream (
    id       integer NOT NULL PRIMARY KEY CHECK (id = 1),
    position bigint  NOT NULL
);
INSERT INTO event_stream (id, position) VALUES (1, 0);

-- The number of each account's last transaction that is published. The ledger's rows are
-- themselves what their transactions tell of, so that a spend writes no row more.
CREATE TABLE published_credits (
    store_id uuid   NOT NULL PRIMARY KEY REFERENCES stores (id),
    seq      bigint NOT NULL
);
INSERT INTO published_credits (store_id, seq) SELECT store_id, seq FROM credit_balances WHERE seq > 0;

-- The addresses that events are sent to. The lease (claimed_by, claimed_until) belongs to the
-- process that sends to it. next_at is when there is something to send; NULL: nothing.
CREATE TABLE webhook_endpoints (
    id              uuid        NOT NULL PRIMARY KEY,
    store_id        uuid        REFERENCES stores (id), -- NULL: the platform's, for all stores
    url             text        NOT NULL,
    description     text        NOT NULL DEFAULT '',
    types           text        NOT NULL DEFAULT '', -- separated by spaces; '' is all
    state           text        NOT NULL CHECK (state IN ('enabled', 'paused', 'disabled', 'deleted')),
    disabled_reason text        NOT NULL DEFAULT '',
    secret          text        NOT NULL, -- sealed
    old_secret      text, -- sealed; signs as well until old_until
    old_until       timestamptz,
    position        bigint      NOT NULL, -- of the last event that was sent or is not for it
    last_position   bigint      NOT NULL, -- of the last event that is published for it
    replay_position bigint      NOT NULL DEFAULT 0, -- as position, of what is sent again
    replay_until    bigint      NOT NULL DEFAULT 0, -- the last position to send again
    next_at         timestamptz,
    slow            boolean     NOT NULL DEFAULT FALSE,
    failures        integer     NOT NULL DEFAULT 0, -- rounds since the last success
    failing_since   timestamptz,
    version         bigint      NOT NULL DEFAULT 1,
    created_by      uuid        NOT NULL REFERENCES users (id),
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    claimed_by      text,
    claimed_until   timestamptz
);
CREATE INDEX webhook_endpoints_store ON webhook_endpoints (store_id);
CREATE INDEX webhook_endpoints_due ON webhook_endpoints (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX webhook_endpoints_claims ON webhook_endpoints (claimed_by) WHERE claimed_by IS NOT NULL;
CREATE INDEX webhook_endpoints_created_by ON webhook_endpoints (created_by);
CREATE INDEX webhook_endpoints_updated ON webhook_endpoints (updated_at);

-- What was sent to an endpoint. A waiting one is tried again at next_at.
CREATE TABLE webhook_deliveries (
    id          uuid        NOT NULL PRIMARY KEY,
    endpoint_id uuid        NOT NULL REFERENCES webhook_endpoints (id),
    event_id    uuid        NOT NULL,
    type        text        NOT NULL, -- of the event
    origin      text        NOT NULL CHECK (origin IN ('event', 'resend', 'replay', 'test')),
    state       text        NOT NULL CHECK (state IN ('waiting', 'succeeded', 'failed')),
    attempts    integer     NOT NULL DEFAULT 0,
    next_at     timestamptz,
    created_at  timestamptz NOT NULL,
    finished_at timestamptz
);
CREATE INDEX webhook_deliveries_endpoint ON webhook_deliveries (endpoint_id, id);
CREATE INDEX webhook_deliveries_waiting ON webhook_deliveries (endpoint_id, next_at) WHERE state = 'waiting';
CREATE INDEX webhook_deliveries_created ON webhook_deliveries (created_at);

CREATE TABLE webhook_attempts (
    delivery_id uuid        NOT NULL,
    number      integer     NOT NULL, -- 1, 2, 3, …
    at          timestamptz NOT NULL,
    took_ms     bigint      NOT NULL,
    status      integer     NOT NULL, -- of the answer; 0: there was none
    fault       text        NOT NULL, -- '': it succeeded
    answer      text        NOT NULL, -- the beginning of its body
    PRIMARY KEY (delivery_id, number)
);
CREATE INDEX webhook_attempts_at ON webhook_attempts (at);
