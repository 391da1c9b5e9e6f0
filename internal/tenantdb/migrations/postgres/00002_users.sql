-- +goose Up

-- People with an account in this store. The owner's id is that of the
-- platform's user. Addresses differ by more than case: email_key is unique.
CREATE TABLE users (
    id         uuid         PRIMARY KEY,
    email      varchar(254) NOT NULL CHECK (length(email) >= 3 AND email NOT LIKE '% %'),
    email_key  varchar(254) GENERATED ALWAYS AS (lower(email)) STORED UNIQUE,
    first_name varchar(120) NOT NULL,
    last_name  varchar(120) NOT NULL,
    phone      varchar(40)  NOT NULL DEFAULT '',
    role       varchar(20)  NOT NULL CHECK (role IN ('owner', 'staff', 'customer')),
    active     boolean      NOT NULL DEFAULT true,
    created_at timestamptz  NOT NULL,
    updated_at timestamptz  NOT NULL
);
CREATE INDEX users_role ON users (role, id);
