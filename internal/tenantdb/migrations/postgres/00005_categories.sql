-- +goose Up

CREATE TABLE categories (
    id          uuid          PRIMARY KEY,
    parent_id   uuid          REFERENCES categories (id) ON DELETE SET NULL,
    name        varchar(200)  NOT NULL CHECK (name <> ''),
    slug        varchar(120)  NOT NULL UNIQUE CHECK (slug <> '' AND slug = lower(slug) AND slug NOT LIKE '% %'),
    description varchar(2000) NOT NULL,
    sort_order  integer       NOT NULL DEFAULT 0,
    created_at  timestamptz   NOT NULL,
    updated_at  timestamptz   NOT NULL
);
CREATE INDEX categories_parent ON categories (parent_id);
