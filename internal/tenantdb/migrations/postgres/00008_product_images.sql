-- +goose Up

-- The image with the lowest sort_order is the product's primary one.
CREATE TABLE product_images (
    id         uuid          PRIMARY KEY,
    product_id uuid          NOT NULL REFERENCES products (id) ON DELETE CASCADE,
    url        varchar(2048) NOT NULL CHECK (url <> ''),
    alt_text   varchar(200)  NOT NULL,
    sort_order integer       NOT NULL DEFAULT 0,
    created_at timestamptz   NOT NULL
);
CREATE INDEX product_images_order ON product_images (product_id, sort_order, id);
