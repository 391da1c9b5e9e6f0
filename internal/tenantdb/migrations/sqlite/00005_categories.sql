-- +goose Up

CREATE TABLE categories (
    id          text      NOT NULL PRIMARY KEY,
    parent_id   text      REFERENCES categories (id) ON DELETE SET NULL,
    name        text      NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    slug        text      NOT NULL UNIQUE CHECK (length(slug) BETWEEN 1 AND 120 AND slug = lower(slug) AND slug NOT LIKE '% %'),
    description text      NOT NULL CHECK (length(description) <= 2000),
    sort_order  integer   NOT NULL DEFAULT 0,
    created_at  timestamp NOT NULL,
    updated_at  timestamp NOT NULL
);
CREATE INDEX categories_parent ON categories (parent_id);
