-- +goose Up

-- How far the copies of this store's credits are, the balance and the log of
-- spending: the platform's own note, changed together with them.
CREATE TABLE IF NOT EXISTS credit_copies (
    store_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    version  BIGINT   NOT NULL,
    seq      BIGINT   NOT NULL,
    FOREIGN KEY (store_id) REFERENCES stores (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
