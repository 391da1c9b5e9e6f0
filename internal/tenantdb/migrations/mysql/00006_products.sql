-- +goose Up

-- All variants of a product are priced in its currency.
CREATE TABLE IF NOT EXISTS products (
    id          CHAR(36)      CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    category_id CHAR(36)      CHARACTER SET ascii COLLATE ascii_bin,
    name        VARCHAR(200)  NOT NULL CHECK (name <> ''),
    slug        VARCHAR(120)  COLLATE utf8mb4_bin NOT NULL
                CHECK (slug <> '' AND slug = lower(slug) AND slug NOT LIKE '% %'),
    description VARCHAR(5000) NOT NULL,
    currency    VARCHAR(3)    COLLATE utf8mb4_bin NOT NULL CHECK (char_length(currency) = 3),
    status      VARCHAR(20)   COLLATE utf8mb4_bin NOT NULL
                CHECK (status IN ('draft', 'published', 'archived')),
    created_at  DATETIME(6)   NOT NULL,
    updated_at  DATETIME(6)   NOT NULL,
    UNIQUE KEY products_slug (slug),
    KEY products_status (status, id),
    KEY products_category (category_id, id),
    FOREIGN KEY (category_id) REFERENCES categories (id) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
