-- +goose Up

-- Name, sku and price are as they were when the order was placed; the
-- variant may be gone since. Amounts are in the order's currency.
CREATE TABLE order_items (
    id               text    NOT NULL PRIMARY KEY,
    order_id         text    NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    variant_id       text    REFERENCES product_variants (id) ON DELETE SET NULL,
    product_name     text    NOT NULL CHECK (length(product_name) <= 200),
    variant_name     text    NOT NULL CHECK (length(variant_name) <= 200),
    sku              text    NOT NULL DEFAULT '' CHECK (length(sku) <= 64),
    quantity         integer NOT NULL CHECK (quantity > 0),
    unit_price_minor integer NOT NULL CHECK (unit_price_minor >= 0),
    total_minor      integer NOT NULL CHECK (total_minor >= 0),
    sort_order       integer NOT NULL DEFAULT 0
);
CREATE INDEX order_items_order ON order_items (order_id, sort_order);
CREATE INDEX order_items_variant ON order_items (variant_id);
