-- +goose Up

-- Everyone who has bought, with an account (user_id) or as a guest.
CREATE TABLE IF NOT EXISTS customers (
    id         CHAR(36)      CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    user_id    CHAR(36)      CHARACTER SET ascii COLLATE ascii_bin,
    email      VARCHAR(254)  NOT NULL CHECK (char_length(email) >= 3 AND email NOT LIKE '% %'),
    email_key  VARCHAR(254)  COLLATE utf8mb4_bin GENERATED ALWAYS AS (lower(email)) STORED,
    first_name VARCHAR(120)  NOT NULL,
    last_name  VARCHAR(120)  NOT NULL,
    phone      VARCHAR(40)   NOT NULL DEFAULT '',
    note       VARCHAR(2000) NOT NULL DEFAULT '',
    marketing  BOOLEAN       NOT NULL DEFAULT false,
    created_at DATETIME(6)   NOT NULL,
    updated_at DATETIME(6)   NOT NULL,
    UNIQUE KEY customers_user (user_id),
    UNIQUE KEY customers_email (email_key),
    FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
