-- +goose Up

CREATE TABLE IF NOT EXISTS pages (
    id         CHAR(36)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    slug       VARCHAR(120) COLLATE utf8mb4_bin NOT NULL
               CHECK (slug <> '' AND slug = lower(slug) AND slug NOT LIKE '% %'),
    title      VARCHAR(200) NOT NULL CHECK (title <> ''),
    body       MEDIUMTEXT   NOT NULL,
    published  BOOLEAN      NOT NULL,
    created_at DATETIME(6)  NOT NULL,
    updated_at DATETIME(6)  NOT NULL,
    UNIQUE KEY pages_slug (slug)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
