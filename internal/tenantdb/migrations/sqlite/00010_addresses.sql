-- +goose Up

CREATE TABLE addresses (
    id            text      NOT NULL PRIMARY KEY,
    customer_id   text      NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
    kind          text      NOT NULL CHECK (kind IN ('billing', 'shipping')),
    is_default    boolean   NOT NULL DEFAULT false,
    first_name    text      NOT NULL CHECK (length(first_name) <= 120),
    last_name     text      NOT NULL CHECK (length(last_name) <= 120),
    company       text      NOT NULL DEFAULT '' CHECK (length(company) <= 200),
    address_line1 text      NOT NULL CHECK (length(address_line1) <= 200),
    address_line2 text      NOT NULL DEFAULT '' CHECK (length(address_line2) <= 200),
    city          text      NOT NULL CHECK (length(city) <= 120),
    region        text      NOT NULL DEFAULT '' CHECK (length(region) <= 120),
    postal_code   text      NOT NULL DEFAULT '' CHECK (length(postal_code) <= 20),
    country       text      NOT NULL CHECK (length(country) = 2),
    phone         text      NOT NULL DEFAULT '' CHECK (length(phone) <= 40),
    created_at    timestamp NOT NULL,
    updated_at    timestamp NOT NULL
);
CREATE INDEX addresses_customer ON addresses (customer_id, id);
