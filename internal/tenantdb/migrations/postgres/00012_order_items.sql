-- +goose Up

-- Name, sku and price are as they were when the order was placed; the
-- variant may be gone since. Amounts are in the order's currency.
CREATE TABLE order_items (
    id               uuid         PRIMARY KEY,
    order_id         uuid         NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    variant_id       uuid         REFERENCES product_variants (id) ON DELETE SET NULL,
    product_name     varchar(200) NOT NULL,
    variant_name     varchar(200) NOT NULL,
    sku              varchar(64)  NOT NULL DEFAULT '',
    quantity         integer      NOT NULL CHECK (quantity > 0),
    unit_price_minor bigint       NOT NULL CHECK (unit_price_minor >= 0),
    total_minor      bigint       NOT NULL CHECK (total_minor >= 0),
    sort_order       integer      NOT NULL DEFAULT 0
);
CREATE INDEX order_items_order ON order_items (order_id, sort_order);
CREATE INDEX order_items_variant ON order_items (variant_id);
