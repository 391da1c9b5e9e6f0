-- +goose Up

-- People with an account in this store. The owner's id is that of the
-- platform's user. Addresses differ by more than case: email_key is unique.
CREATE TABLE users (
    id         text      NOT NULL PRIMARY KEY,
    email      text      NOT NULL CHECK (length(email) BETWEEN 3 AND 254 AND email NOT LIKE '% %'),
    email_key  text      GENERATED ALWAYS AS (lower(email)) STORED UNIQUE,
    first_name text      NOT NULL CHECK (length(first_name) <= 120),
    last_name  text      NOT NULL CHECK (length(last_name) <= 120),
    phone      text      NOT NULL DEFAULT '' CHECK (length(phone) <= 40),
    role       text      NOT NULL CHECK (role IN ('owner', 'staff', 'customer')),
    active     boolean   NOT NULL DEFAULT true,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL
);
CREATE INDEX users_role ON users (role, id);
