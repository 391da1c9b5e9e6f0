-- +goose Up

-- A copy of the ledger's entries that spent this store's credits; id and seq
-- are the ledger's own, so that copying twice changes nothing.
-- 1 credit = 10,000 units.
CREATE TABLE credit_spending_log (
    id            text      NOT NULL PRIMARY KEY,
    store_id      text      NOT NULL REFERENCES stores (id) ON DELETE CASCADE,
    seq           integer   NOT NULL,
    entry_type    text      NOT NULL CHECK (length(entry_type) <= 20),
    amount        integer   NOT NULL,
    balance_after integer   NOT NULL,
    service_key   text      NOT NULL DEFAULT '' CHECK (length(service_key) <= 120),
    quantity      integer   CHECK (quantity > 0),
    description   text      NOT NULL DEFAULT '' CHECK (length(description) <= 500),
    created_at    timestamp NOT NULL,
    UNIQUE (store_id, seq)
);
