-- +goose Up

-- Prices are in the minor unit of the product's currency. A sku of NULL is
-- none; a stock of NULL is not counted, so always available. A sku is
-- compared byte by byte; the CHECK keeps out the spaces at its end that
-- MySQL would not tell apart.
CREATE TABLE IF NOT EXISTS product_variants (
    id               CHAR(36)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    product_id       CHAR(36)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name             VARCHAR(200) NOT NULL,
    sku              VARCHAR(64)  COLLATE utf8mb4_bin
                     CHECK (sku <> '' AND sku NOT LIKE ' %' AND sku NOT LIKE '% '),
    price_minor      BIGINT       NOT NULL CHECK (price_minor >= 0),
    compare_at_minor BIGINT       CHECK (compare_at_minor >= 0),
    stock            INTEGER      CHECK (stock >= 0),
    sort_order       INTEGER      NOT NULL DEFAULT 0,
    created_at       DATETIME(6)  NOT NULL,
    updated_at       DATETIME(6)  NOT NULL,
    UNIQUE KEY product_variants_sku (sku),
    KEY product_variants_price (product_id, price_minor),
    FOREIGN KEY (product_id) REFERENCES products (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
