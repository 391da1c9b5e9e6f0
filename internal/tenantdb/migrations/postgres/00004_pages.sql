-- +goose Up

CREATE TABLE pages (
    id         uuid         PRIMARY KEY,
    slug       varchar(120) NOT NULL UNIQUE CHECK (slug <> '' AND slug = lower(slug) AND slug NOT LIKE '% %'),
    title      varchar(200) NOT NULL CHECK (title <> ''),
    body       text         NOT NULL,
    published  boolean      NOT NULL,
    created_at timestamptz  NOT NULL,
    updated_at timestamptz  NOT NULL
);
