-- +goose Up

-- How far the copies of this store's credits are, the balance and the log of
-- spending: the platform's own note, changed together with them.
CREATE TABLE credit_copies (
    store_id uuid   PRIMARY KEY REFERENCES stores (id) ON DELETE CASCADE,
    version  bigint NOT NULL,
    seq      bigint NOT NULL
);
