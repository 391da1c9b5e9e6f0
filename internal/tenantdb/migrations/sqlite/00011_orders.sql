-- +goose Up

-- Amounts are in the minor unit of the order's currency. The addresses are
-- as they were when the order was placed.
CREATE TABLE orders (
    id               text      NOT NULL PRIMARY KEY,
    order_number     text      NOT NULL UNIQUE CHECK (length(order_number) BETWEEN 1 AND 40 AND order_number NOT LIKE '% %'),
    customer_id      text      REFERENCES customers (id) ON DELETE SET NULL,
    email            text      NOT NULL CHECK (length(email) <= 254),
    status           text      NOT NULL CHECK (status IN ('pending', 'confirmed', 'completed', 'cancelled')),
    payment_status   text      NOT NULL CHECK (payment_status IN ('unpaid', 'paid', 'partly_refunded', 'refunded')),
    shipping_status  text      NOT NULL CHECK (shipping_status IN ('unshipped', 'partly_shipped', 'shipped', 'returned')),
    currency         text      NOT NULL CHECK (length(currency) = 3),
    subtotal_minor   integer   NOT NULL CHECK (subtotal_minor >= 0),
    discount_minor   integer   NOT NULL DEFAULT 0 CHECK (discount_minor >= 0),
    shipping_minor   integer   NOT NULL DEFAULT 0 CHECK (shipping_minor >= 0),
    tax_minor        integer   NOT NULL DEFAULT 0 CHECK (tax_minor >= 0),
    total_minor      integer   NOT NULL CHECK (total_minor >= 0),
    billing_address  text      NOT NULL CHECK (json_type(billing_address) = 'object'),
    shipping_address text      NOT NULL CHECK (json_type(shipping_address) = 'object'),
    note             text      NOT NULL DEFAULT '' CHECK (length(note) <= 2000),
    placed_at        timestamp NOT NULL,
    created_at       timestamp NOT NULL,
    updated_at       timestamp NOT NULL
);
CREATE INDEX orders_status ON orders (status, id);
CREATE INDEX orders_customer ON orders (customer_id, id);
