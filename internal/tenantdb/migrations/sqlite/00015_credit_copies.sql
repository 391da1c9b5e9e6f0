-- +goose Up

-- How far the copies of this store's credits are, the balance and the log of
-- spending: the platform's own note, changed together with them.
CREATE TABLE credit_copies (
    store_id text    NOT NULL PRIMARY KEY REFERENCES stores (id) ON DELETE CASCADE,
    version  integer NOT NULL,
    seq      integer NOT NULL
);
