-- +goose Up

-- A copy of the ledger's entries that spent this store's credits; id and seq
-- are the ledger's own, so that copying twice changes nothing.
-- 1 credit = 10,000 units.
CREATE TABLE credit_spending_log (
    id            uuid         PRIMARY KEY,
    store_id      uuid         NOT NULL REFERENCES stores (id) ON DELETE CASCADE,
    seq           bigint       NOT NULL,
    entry_type    varchar(20)  NOT NULL,
    amount        bigint       NOT NULL,
    balance_after bigint       NOT NULL,
    service_key   varchar(120) NOT NULL DEFAULT '',
    quantity      bigint       CHECK (quantity > 0),
    description   varchar(500) NOT NULL DEFAULT '',
    created_at    timestamptz  NOT NULL,
    UNIQUE (store_id, seq)
);
