-- +goose Up

CREATE TABLE IF NOT EXISTS addresses (
    id            CHAR(36)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    customer_id   CHAR(36)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    kind          VARCHAR(20)  COLLATE utf8mb4_bin NOT NULL CHECK (kind IN ('billing', 'shipping')),
    is_default    BOOLEAN      NOT NULL DEFAULT false,
    first_name    VARCHAR(120) NOT NULL,
    last_name     VARCHAR(120) NOT NULL,
    company       VARCHAR(200) NOT NULL DEFAULT '',
    address_line1 VARCHAR(200) NOT NULL,
    address_line2 VARCHAR(200) NOT NULL DEFAULT '',
    city          VARCHAR(120) NOT NULL,
    region        VARCHAR(120) NOT NULL DEFAULT '',
    postal_code   VARCHAR(20)  NOT NULL DEFAULT '',
    country       VARCHAR(2)   COLLATE utf8mb4_bin NOT NULL CHECK (char_length(country) = 2),
    phone         VARCHAR(40)  NOT NULL DEFAULT '',
    created_at    DATETIME(6)  NOT NULL,
    updated_at    DATETIME(6)  NOT NULL,
    KEY addresses_customer (customer_id, id),
    FOREIGN KEY (customer_id) REFERENCES customers (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
