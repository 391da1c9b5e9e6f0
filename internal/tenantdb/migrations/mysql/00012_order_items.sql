-- +goose Up

-- Name, sku and price are as they were when the order was placed; the
-- variant may be gone since. Amounts are in the order's currency.
CREATE TABLE IF NOT EXISTS order_items (
    id               CHAR(36)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    order_id         CHAR(36)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    variant_id       CHAR(36)     CHARACTER SET ascii COLLATE ascii_bin,
    product_name     VARCHAR(200) NOT NULL,
    variant_name     VARCHAR(200) NOT NULL,
    sku              VARCHAR(64)  NOT NULL DEFAULT '',
    quantity         INTEGER      NOT NULL CHECK (quantity > 0),
    unit_price_minor BIGINT       NOT NULL CHECK (unit_price_minor >= 0),
    total_minor      BIGINT       NOT NULL CHECK (total_minor >= 0),
    sort_order       INTEGER      NOT NULL DEFAULT 0,
    KEY order_items_order (order_id, sort_order),
    KEY order_items_variant (variant_id),
    FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE,
    FOREIGN KEY (variant_id) REFERENCES product_variants (id) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
