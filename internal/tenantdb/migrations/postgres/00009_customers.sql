-- +goose Up

-- Everyone who has bought, with an account (user_id) or as a guest.
CREATE TABLE customers (
    id         uuid          PRIMARY KEY,
    user_id    uuid          UNIQUE REFERENCES users (id) ON DELETE SET NULL,
    email      varchar(254)  NOT NULL CHECK (length(email) >= 3 AND email NOT LIKE '% %'),
    email_key  varchar(254)  GENERATED ALWAYS AS (lower(email)) STORED UNIQUE,
    first_name varchar(120)  NOT NULL,
    last_name  varchar(120)  NOT NULL,
    phone      varchar(40)   NOT NULL DEFAULT '',
    note       varchar(2000) NOT NULL DEFAULT '',
    marketing  boolean       NOT NULL DEFAULT false,
    created_at timestamptz   NOT NULL,
    updated_at timestamptz   NOT NULL
);
