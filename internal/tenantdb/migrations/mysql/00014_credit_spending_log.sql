-- +goose Up

-- A copy of the ledger's entries that spent this store's credits; id and seq
-- are the ledger's own, so that copying twice changes nothing.
-- 1 credit = 10,000 units.
CREATE TABLE IF NOT EXISTS credit_spending_log (
    id            CHAR(36)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    store_id      CHAR(36)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    seq           BIGINT       NOT NULL,
    entry_type    VARCHAR(20)  COLLATE utf8mb4_bin NOT NULL,
    amount        BIGINT       NOT NULL,
    balance_after BIGINT       NOT NULL,
    service_key   VARCHAR(120) NOT NULL DEFAULT '',
    quantity      BIGINT       CHECK (quantity > 0),
    description   VARCHAR(500) NOT NULL DEFAULT '',
    created_at    DATETIME(6)  NOT NULL,
    UNIQUE KEY credit_spending_log_seq (store_id, seq),
    FOREIGN KEY (store_id) REFERENCES stores (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
