-- +goose Up

-- A copy of the store's credit balance for its own software to read. The
-- platform's ledger decides; seq is the last ledger entry in this copy.
-- 1 credit = 10,000 units.
CREATE TABLE IF NOT EXISTS credit_balance_cache (
    store_id           CHAR(36)    CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    balance            BIGINT      NOT NULL,
    reserved           BIGINT      NOT NULL,
    debt               BIGINT      NOT NULL,
    lifetime_purchased BIGINT      NOT NULL,
    lifetime_spent     BIGINT      NOT NULL,
    seq                BIGINT      NOT NULL,
    updated_at         DATETIME(6) NOT NULL,
    FOREIGN KEY (store_id) REFERENCES stores (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
