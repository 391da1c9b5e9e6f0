-- +goose Up

-- Prices are in the minor unit of the product's currency. A sku of NULL is
-- none; a stock of NULL is not counted, so always available.
CREATE TABLE product_variants (
    id               text      NOT NULL PRIMARY KEY,
    product_id       text      NOT NULL REFERENCES products (id) ON DELETE CASCADE,
    name             text      NOT NULL CHECK (length(name) <= 200),
    sku              text      UNIQUE CHECK (length(sku) BETWEEN 1 AND 64 AND sku NOT LIKE ' %' AND sku NOT LIKE '% '),
    price_minor      integer   NOT NULL CHECK (price_minor >= 0),
    compare_at_minor integer   CHECK (compare_at_minor >= 0),
    stock            integer   CHECK (stock >= 0),
    sort_order       integer   NOT NULL DEFAULT 0,
    created_at       timestamp NOT NULL,
    updated_at       timestamp NOT NULL
);
CREATE INDEX product_variants_price ON product_variants (product_id, price_minor);
