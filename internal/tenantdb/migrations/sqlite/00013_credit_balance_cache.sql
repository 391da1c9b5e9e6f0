-- +goose Up

-- A copy of the store's credit balance for its own software to read. The
-- platform's ledger decides; seq is the last ledger entry in this copy.
-- 1 credit = 10,000 units.
CREATE TABLE credit_balance_cache (
    store_id           text      NOT NULL PRIMARY KEY REFERENCES stores (id) ON DELETE CASCADE,
    balance            integer   NOT NULL,
    reserved           integer   NOT NULL,
    debt               integer   NOT NULL,
    lifetime_purchased integer   NOT NULL,
    lifetime_spent     integer   NOT NULL,
    seq                integer   NOT NULL,
    updated_at         timestamp NOT NULL
);
