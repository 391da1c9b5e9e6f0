-- +goose Up

-- The requests of shoppers to each store, by hour. Each process adds what it has
-- counted about once a minute.
CREATE TABLE store_traffic (
    store_id   text      NOT NULL REFERENCES stores (id),
    hour       timestamp NOT NULL, -- its beginning
    requests   integer NOT NULL CHECK (requests >= 0),
    errors     integer NOT NULL CHECK (errors >= 0), -- requests that failed through no fault of the shopper
    total_ms   integer NOT NULL CHECK (total_ms >= 0),
    slowest_ms integer NOT NULL CHECK (slowest_ms >= 0),
    PRIMARY KEY (store_id, hour)
);
-- What has expired, and the stores that were slow or failed in an hour.
CREATE INDEX store_traffic_hour ON store_traffic (hour);
CREATE INDEX store_traffic_slow ON store_traffic (hour, store_id) WHERE total_ms >= 500 * requests;
CREATE INDEX store_traffic_failing ON store_traffic (hour, store_id) WHERE errors > 0;

-- The lists of the operator, each in the order of the stores' ids.
CREATE INDEX stores_status ON stores (status, id);
CREATE INDEX store_databases_server ON store_databases (host, port, store_id);
CREATE INDEX store_databases_engine ON store_databases (engine, store_id);
CREATE INDEX store_databases_health ON store_databases (status, store_id);
CREATE INDEX store_databases_version ON store_databases (schema_version, own_version, store_id);
-- Searches by the beginning of a slug or name.
CREATE INDEX stores_name ON stores (lower(name), id);

-- What an operator does to many stores: the job that does it records its progress here.
CREATE TABLE bulk_actions (
    id          text      NOT NULL PRIMARY KEY,
    user_id     text      NOT NULL REFERENCES users (id),
    kind        text NOT NULL CHECK (kind IN ('suspend', 'migrate')),
    selection   text NOT NULL, -- stores or a filter, in JSON
    state       text NOT NULL CHECK (state IN ('queued', 'running', 'finished', 'failed')),
    total       integer CHECK (total >= 0), -- stores, if it is known
    done        integer NOT NULL DEFAULT 0 CHECK (done >= 0),
    unchanged   integer NOT NULL DEFAULT 0 CHECK (unchanged >= 0), -- stores that had nothing to be done
    failed      integer NOT NULL DEFAULT 0 CHECK (failed >= 0),
    failures    text NOT NULL DEFAULT '[]', -- the first ones, in JSON
    position    text NOT NULL DEFAULT '', -- what the job has reached
    error       text, -- why it ended early
    created_at  timestamp NOT NULL,
    finished_at timestamp
);
CREATE INDEX bulk_actions_created ON bulk_actions (created_at);
