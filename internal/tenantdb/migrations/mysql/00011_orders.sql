-- +goose Up

-- Amounts are in the minor unit of the order's currency. The addresses are
-- as they were when the order was placed.
CREATE TABLE IF NOT EXISTS orders (
    id               CHAR(36)      CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    order_number     VARCHAR(40)   COLLATE utf8mb4_bin NOT NULL
                     CHECK (order_number <> '' AND order_number NOT LIKE '% %'),
    customer_id      CHAR(36)      CHARACTER SET ascii COLLATE ascii_bin,
    email            VARCHAR(254)  NOT NULL,
    status           VARCHAR(20)   COLLATE utf8mb4_bin NOT NULL
                     CHECK (status IN ('pending', 'confirmed', 'completed', 'cancelled')),
    payment_status   VARCHAR(20)   COLLATE utf8mb4_bin NOT NULL
                     CHECK (payment_status IN ('unpaid', 'paid', 'partly_refunded', 'refunded')),
    shipping_status  VARCHAR(20)   COLLATE utf8mb4_bin NOT NULL
                     CHECK (shipping_status IN ('unshipped', 'partly_shipped', 'shipped', 'returned')),
    currency         VARCHAR(3)    COLLATE utf8mb4_bin NOT NULL CHECK (char_length(currency) = 3),
    subtotal_minor   BIGINT        NOT NULL CHECK (subtotal_minor >= 0),
    discount_minor   BIGINT        NOT NULL DEFAULT 0 CHECK (discount_minor >= 0),
    shipping_minor   BIGINT        NOT NULL DEFAULT 0 CHECK (shipping_minor >= 0),
    tax_minor        BIGINT        NOT NULL DEFAULT 0 CHECK (tax_minor >= 0),
    total_minor      BIGINT        NOT NULL CHECK (total_minor >= 0),
    billing_address  JSON          NOT NULL CHECK (json_valid(billing_address) AND json_type(billing_address) = 'OBJECT'),
    shipping_address JSON          NOT NULL CHECK (json_valid(shipping_address) AND json_type(shipping_address) = 'OBJECT'),
    note             VARCHAR(2000) NOT NULL DEFAULT '',
    placed_at        DATETIME(6)   NOT NULL,
    created_at       DATETIME(6)   NOT NULL,
    updated_at       DATETIME(6)   NOT NULL,
    UNIQUE KEY orders_number (order_number),
    KEY orders_status (status, id),
    KEY orders_customer (customer_id, id),
    FOREIGN KEY (customer_id) REFERENCES customers (id) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
