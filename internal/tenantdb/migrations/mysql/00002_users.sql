-- +goose Up

-- People with an account in this store. The owner's id is that of the
-- platform's user. Addresses differ by more than case: email_key is unique,
-- and binary, for unicode_ci would take "rené" for "rene".
CREATE TABLE IF NOT EXISTS users (
    id         CHAR(36)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    email      VARCHAR(254) NOT NULL CHECK (char_length(email) >= 3 AND email NOT LIKE '% %'),
    email_key  VARCHAR(254) COLLATE utf8mb4_bin GENERATED ALWAYS AS (lower(email)) STORED,
    first_name VARCHAR(120) NOT NULL,
    last_name  VARCHAR(120) NOT NULL,
    phone      VARCHAR(40)  NOT NULL DEFAULT '',
    role       VARCHAR(20)  COLLATE utf8mb4_bin NOT NULL
               CHECK (role IN ('owner', 'staff', 'customer')),
    active     BOOLEAN      NOT NULL DEFAULT true,
    created_at DATETIME(6)  NOT NULL,
    updated_at DATETIME(6)  NOT NULL,
    UNIQUE KEY users_email (email_key),
    KEY users_role (role, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
