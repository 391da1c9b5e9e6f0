-- +goose Up

-- All variants of a product are priced in its currency.
CREATE TABLE products (
    id          uuid          PRIMARY KEY,
    category_id uuid          REFERENCES categories (id) ON DELETE SET NULL,
    name        varchar(200)  NOT NULL CHECK (name <> ''),
    slug        varchar(120)  NOT NULL UNIQUE CHECK (slug <> '' AND slug = lower(slug) AND slug NOT LIKE '% %'),
    description varchar(5000) NOT NULL,
    currency    varchar(3)    NOT NULL CHECK (length(currency) = 3),
    status      varchar(20)   NOT NULL CHECK (status IN ('draft', 'published', 'archived')),
    created_at  timestamptz   NOT NULL,
    updated_at  timestamptz   NOT NULL
);
CREATE INDEX products_status ON products (status, id);
CREATE INDEX products_category ON products (category_id, id);
