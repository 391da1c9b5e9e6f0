-- +goose Up

-- What the transactions of a store add up to by day and service, for its charts: a
-- store may have millions of transactions. The rows follow from the ledger. They are
-- brought up to date when they are read (Ledger.Statistics).
CREATE TABLE credit_days (
    store_id      text    NOT NULL REFERENCES stores (id),
    day           integer NOT NULL, -- in UTC, counted from 1970-01-01
    service_key   text    NOT NULL, -- empty: for no service
    seq           integer NOT NULL, -- of the last transaction of the day and service
    balance_after integer NOT NULL, -- after that transaction
    purchased     integer NOT NULL CHECK (purchased >= 0),
    spent         integer NOT NULL CHECK (spent >= 0),
    quantity      integer NOT NULL CHECK (quantity >= 0), -- of the service
    PRIMARY KEY (store_id, day, service_key)
);

-- The last transaction of a store that credit_days includes.
CREATE TABLE credit_day_positions (
    store_id text    NOT NULL PRIMARY KEY REFERENCES stores (id),
    seq      integer NOT NULL CHECK (seq >= 0)
);
