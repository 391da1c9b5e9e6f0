-- +goose Up

-- Amounts are in the minor unit of the order's currency. The addresses are
-- as they were when the order was placed.
CREATE TABLE orders (
    id               uuid          PRIMARY KEY,
    order_number     varchar(40)   NOT NULL UNIQUE CHECK (order_number <> '' AND order_number NOT LIKE '% %'),
    customer_id      uuid          REFERENCES customers (id) ON DELETE SET NULL,
    email            varchar(254)  NOT NULL,
    status           varchar(20)   NOT NULL CHECK (status IN ('pending', 'confirmed', 'completed', 'cancelled')),
    payment_status   varchar(20)   NOT NULL CHECK (payment_status IN ('unpaid', 'paid', 'partly_refunded', 'refunded')),
    shipping_status  varchar(20)   NOT NULL CHECK (shipping_status IN ('unshipped', 'partly_shipped', 'shipped', 'returned')),
    currency         varchar(3)    NOT NULL CHECK (length(currency) = 3),
    subtotal_minor   bigint        NOT NULL CHECK (subtotal_minor >= 0),
    discount_minor   bigint        NOT NULL DEFAULT 0 CHECK (discount_minor >= 0),
    shipping_minor   bigint        NOT NULL DEFAULT 0 CHECK (shipping_minor >= 0),
    tax_minor        bigint        NOT NULL DEFAULT 0 CHECK (tax_minor >= 0),
    total_minor      bigint        NOT NULL CHECK (total_minor >= 0),
    billing_address  jsonb         NOT NULL CHECK (jsonb_typeof(billing_address) = 'object'),
    shipping_address jsonb         NOT NULL CHECK (jsonb_typeof(shipping_address) = 'object'),
    note             varchar(2000) NOT NULL DEFAULT '',
    placed_at        timestamptz   NOT NULL,
    created_at       timestamptz   NOT NULL,
    updated_at       timestamptz   NOT NULL
);
CREATE INDEX orders_status ON orders (status, id);
CREATE INDEX orders_customer ON orders (customer_id, id);
