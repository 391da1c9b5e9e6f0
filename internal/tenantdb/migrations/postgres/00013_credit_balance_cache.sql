-- +goose Up

-- A copy of the store's credit balance for its own software to read. The
-- platform's ledger decides; seq is the last ledger entry in this copy.
-- 1 credit = 10,000 units.
CREATE TABLE credit_balance_cache (
    store_id           uuid        PRIMARY KEY REFERENCES stores (id) ON DELETE CASCADE,
    balance            bigint      NOT NULL,
    reserved           bigint      NOT NULL,
    debt               bigint      NOT NULL,
    lifetime_purchased bigint      NOT NULL,
    lifetime_spent     bigint      NOT NULL,
    seq                bigint      NOT NULL,
    updated_at         timestamptz NOT NULL
);
