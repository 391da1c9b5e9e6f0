-- +goose Up

-- provider_ref is the checkout, which is not known before the provider has
-- been asked, and never for a charge without one. payment_ref is the payment
-- that paid. version rises with every change that the provider's word has
-- made: whoever read an older one asks again.
ALTER TABLE purchases
    ALTER COLUMN provider_ref DROP NOT NULL,
    ADD COLUMN payment_ref    text,
    ADD COLUMN attempt        integer NOT NULL DEFAULT 1 CHECK (attempt > 0),
    ADD COLUMN version        bigint  NOT NULL DEFAULT 0 CHECK (version >= 0),
    ADD COLUMN automatic      boolean NOT NULL DEFAULT false,
    ADD COLUMN reversed_minor bigint  NOT NULL DEFAULT 0 CHECK (reversed_minor BETWEEN 0 AND amount_minor),
    ADD COLUMN clawed_back    bigint  NOT NULL DEFAULT 0 CHECK (clawed_back BETWEEN 0 AND credits),
    ADD COLUMN frozen         bigint  NOT NULL DEFAULT 0 CHECK (frozen BETWEEN 0 AND credits - clawed_back),
    ADD COLUMN freezes        integer NOT NULL DEFAULT 0 CHECK (freezes >= 0);
UPDATE purchases SET payment_ref = (SELECT b.provider_ref FROM billing_transactions b
    WHERE b.purchase_id = purchases.id AND b.type = 'payment');
CREATE UNIQUE INDEX purchases_payment ON purchases (provider, payment_ref);
DROP INDEX purchases_store;
CREATE INDEX purchases_store ON purchases (store_id, id);
CREATE INDEX purchases_pending ON purchases (id) WHERE status = 'pending';
CREATE INDEX purchases_automatic ON purchases (store_id, created_at) WHERE automatic;
-- One charge at a time for each store, whatever the callers do.
CREATE UNIQUE INDEX purchases_one_automatic ON purchases (store_id) WHERE automatic AND status = 'pending';

-- Refunds and disputes: what the provider last said of each.
CREATE TABLE purchase_reversals (
    provider       text        NOT NULL CHECK (provider IN ('stripe', 'sandbox')),
    provider_ref   text        NOT NULL,
    purchase_id    uuid        NOT NULL REFERENCES purchases (id),
    type           text        NOT NULL CHECK (type IN ('refund', 'dispute')),
    taken_minor    bigint      NOT NULL CHECK (taken_minor >= 0),    -- money that is gone
    disputed_minor bigint      NOT NULL CHECK (disputed_minor >= 0), -- money that may go
    changes        integer     NOT NULL CHECK (changes >= 0),        -- of taken_minor
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    PRIMARY KEY (provider, provider_ref)
);
CREATE INDEX purchase_reversals_purchase ON purchase_reversals (purchase_id);

-- Purchases that the platform makes by itself when a store runs low.
CREATE TABLE auto_recharges (
    store_id       uuid        PRIMARY KEY REFERENCES stores (id) ON DELETE CASCADE,
    user_id        uuid        NOT NULL REFERENCES users (id), -- who switched it on
    enabled        boolean     NOT NULL DEFAULT false,
    threshold      bigint      NOT NULL DEFAULT 0 CHECK (threshold >= 0),
    credits        bigint      NOT NULL DEFAULT 0 CHECK (credits >= 0),
    monthly_cap    bigint      NOT NULL DEFAULT 0 CHECK (monthly_cap >= 0),
    stopped_reason text        CHECK (stopped_reason IN ('declined', 'authentication_required', 'refused', 'disputed', 'refunded', 'not_permitted')),
    stopped_at     timestamptz,
    customer_ref   text,
    card_ref       text,
    card_brand     text        NOT NULL DEFAULT '',
    card_last4     text        NOT NULL DEFAULT '',
    card_expires   text        NOT NULL DEFAULT '', -- YYYY-MM
    card_saved_at  timestamptz,                     -- by the provider's clock
    updated_at     timestamptz NOT NULL,
    CHECK (NOT enabled OR card_ref IS NOT NULL AND credits > 0 AND stopped_reason IS NULL)
);
CREATE INDEX auto_recharges_enabled ON auto_recharges (store_id) WHERE enabled;
