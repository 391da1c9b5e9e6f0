-- +goose Up

CREATE TABLE addresses (
    id            uuid         PRIMARY KEY,
    customer_id   uuid         NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
    kind          varchar(20)  NOT NULL CHECK (kind IN ('billing', 'shipping')),
    is_default    boolean      NOT NULL DEFAULT false,
    first_name    varchar(120) NOT NULL,
    last_name     varchar(120) NOT NULL,
    company       varchar(200) NOT NULL DEFAULT '',
    address_line1 varchar(200) NOT NULL,
    address_line2 varchar(200) NOT NULL DEFAULT '',
    city          varchar(120) NOT NULL,
    region        varchar(120) NOT NULL DEFAULT '',
    postal_code   varchar(20)  NOT NULL DEFAULT '',
    country       varchar(2)   NOT NULL CHECK (length(country) = 2),
    phone         varchar(40)  NOT NULL DEFAULT '',
    created_at    timestamptz  NOT NULL,
    updated_at    timestamptz  NOT NULL
);
CREATE INDEX addresses_customer ON addresses (customer_id, id);
