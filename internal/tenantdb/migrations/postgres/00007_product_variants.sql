-- +goose Up

-- Prices are in the minor unit of the product's currency. A sku of NULL is
-- none; a stock of NULL is not counted, so always available.
CREATE TABLE product_variants (
    id               uuid         PRIMARY KEY,
    product_id       uuid         NOT NULL REFERENCES products (id) ON DELETE CASCADE,
    name             varchar(200) NOT NULL,
    sku              varchar(64)  UNIQUE CHECK (sku <> '' AND sku NOT LIKE ' %' AND sku NOT LIKE '% '),
    price_minor      bigint       NOT NULL CHECK (price_minor >= 0),
    compare_at_minor bigint       CHECK (compare_at_minor >= 0),
    stock            integer      CHECK (stock >= 0),
    sort_order       integer      NOT NULL DEFAULT 0,
    created_at       timestamptz  NOT NULL,
    updated_at       timestamptz  NOT NULL
);
CREATE INDEX product_variants_price ON product_variants (product_id, price_minor);
