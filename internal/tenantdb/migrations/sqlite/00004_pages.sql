-- +goose Up

CREATE TABLE pages (
    id         text      NOT NULL PRIMARY KEY,
    slug       text      NOT NULL UNIQUE CHECK (length(slug) BETWEEN 1 AND 120 AND slug = lower(slug) AND slug NOT LIKE '% %'),
    title      text      NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    body       text      NOT NULL,
    published  boolean   NOT NULL,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL
);
