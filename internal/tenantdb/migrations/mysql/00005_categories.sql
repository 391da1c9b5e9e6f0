-- +goose Up

CREATE TABLE IF NOT EXISTS categories (
    id          CHAR(36)      CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    parent_id   CHAR(36)      CHARACTER SET ascii COLLATE ascii_bin,
    name        VARCHAR(200)  NOT NULL CHECK (name <> ''),
    slug        VARCHAR(120)  COLLATE utf8mb4_bin NOT NULL
                CHECK (slug <> '' AND slug = lower(slug) AND slug NOT LIKE '% %'),
    description VARCHAR(2000) NOT NULL,
    sort_order  INTEGER       NOT NULL DEFAULT 0,
    created_at  DATETIME(6)   NOT NULL,
    updated_at  DATETIME(6)   NOT NULL,
    UNIQUE KEY categories_slug (slug),
    KEY categories_parent (parent_id),
    FOREIGN KEY (parent_id) REFERENCES categories (id) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
