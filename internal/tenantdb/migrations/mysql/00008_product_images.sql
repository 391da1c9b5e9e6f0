-- +goose Up

-- The image with the lowest sort_order is the product's primary one.
CREATE TABLE IF NOT EXISTS product_images (
    id         CHAR(36)      CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    product_id CHAR(36)      CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    url        VARCHAR(2048) NOT NULL CHECK (url <> ''),
    alt_text   VARCHAR(200)  NOT NULL,
    sort_order INTEGER       NOT NULL DEFAULT 0,
    created_at DATETIME(6)   NOT NULL,
    KEY product_images_order (product_id, sort_order, id),
    FOREIGN KEY (product_id) REFERENCES products (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
