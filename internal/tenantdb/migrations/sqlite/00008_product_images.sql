-- +goose Up

-- The image with the lowest sort_order is the product's primary one.
CREATE TABLE product_images (
    id         text      NOT NULL PRIMARY KEY,
    product_id text      NOT NULL REFERENCES products (id) ON DELETE CASCADE,
    url        text      NOT NULL CHECK (length(url) BETWEEN 1 AND 2048),
    alt_text   text      NOT NULL CHECK (length(alt_text) <= 200),
    sort_order integer   NOT NULL DEFAULT 0,
    created_at timestamp NOT NULL
);
CREATE INDEX product_images_order ON product_images (product_id, sort_order, id);
