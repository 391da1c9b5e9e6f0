-- +goose Up

-- All variants of a product are priced in its currency.
CREATE TABLE products (
    id          text      NOT NULL PRIMARY KEY,
    category_id text      REFERENCES categories (id) ON DELETE SET NULL,
    name        text      NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    slug        text      NOT NULL UNIQUE CHECK (length(slug) BETWEEN 1 AND 120 AND slug = lower(slug) AND slug NOT LIKE '% %'),
    description text      NOT NULL CHECK (length(description) <= 5000),
    currency    text      NOT NULL CHECK (length(currency) = 3),
    status      text      NOT NULL CHECK (status IN ('draft', 'published', 'archived')),
    created_at  timestamp NOT NULL,
    updated_at  timestamp NOT NULL
);
CREATE INDEX products_status ON products (status, id);
CREATE INDEX products_category ON products (category_id, id);
