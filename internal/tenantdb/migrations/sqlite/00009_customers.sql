-- +goose Up

-- Everyone who has bought, with an account (user_id) or as a guest.
CREATE TABLE customers (
    id         text      NOT NULL PRIMARY KEY,
    user_id    text      UNIQUE REFERENCES users (id) ON DELETE SET NULL,
    email      text      NOT NULL CHECK (length(email) BETWEEN 3 AND 254 AND email NOT LIKE '% %'),
    email_key  text      GENERATED ALWAYS AS (lower(email)) STORED UNIQUE,
    first_name text      NOT NULL CHECK (length(first_name) <= 120),
    last_name  text      NOT NULL CHECK (length(last_name) <= 120),
    phone      text      NOT NULL DEFAULT '' CHECK (length(phone) <= 40),
    note       text      NOT NULL DEFAULT '' CHECK (length(note) <= 2000),
    marketing  boolean   NOT NULL DEFAULT false,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL
);
