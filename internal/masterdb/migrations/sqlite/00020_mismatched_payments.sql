-- +goose Up

-- A payment that is not what was sold: paid_minor and paid_currency are what
-- came. Such a purchase is mismatched until all of that has gone back, and then
-- refunded. No credits were granted for it. SQLite changes a constraint by
-- making the table anew, and with it the tables that refer to it.
CREATE TABLE new_purchases (
    id              text        NOT NULL PRIMARY KEY,
    store_id        text        NOT NULL REFERENCES stores (id),
    user_id         text        NOT NULL REFERENCES users (id),
    provider        text        NOT NULL CHECK (provider IN ('stripe', 'sandbox')),
    provider_ref    text,
    payment_ref     text,
    attempt         integer     NOT NULL DEFAULT 1 CHECK (attempt > 0),
    version         integer     NOT NULL DEFAULT 0 CHECK (version >= 0),
    automatic       boolean     NOT NULL DEFAULT false,
    status          text        NOT NULL CHECK (status IN ('pending', 'paid', 'expired', 'refunded', 'mismatched')),
    credits         integer     NOT NULL CHECK (credits > 0),
    amount_minor    integer     NOT NULL CHECK (amount_minor > 0),
    currency        text        NOT NULL CHECK (length(currency) = 3),
    paid_minor      integer     CHECK (paid_minor > 0),
    paid_currency   text        CHECK (length(paid_currency) = 3),
    checkout_url    text        NOT NULL,
    reversed_minor  integer     NOT NULL DEFAULT 0 CHECK (reversed_minor BETWEEN 0 AND coalesce(paid_minor, amount_minor)),
    clawed_back     integer     NOT NULL DEFAULT 0 CHECK (clawed_back BETWEEN 0 AND credits),
    frozen          integer     NOT NULL DEFAULT 0 CHECK (frozen BETWEEN 0 AND credits - clawed_back),
    freezes         integer     NOT NULL DEFAULT 0 CHECK (freezes >= 0),
    idempotency_key text,
    request_hash    text,
    created_at      timestamp   NOT NULL,
    updated_at      timestamp   NOT NULL,
    paid_at         timestamp,
    UNIQUE (provider, provider_ref),
    UNIQUE (store_id, idempotency_key),
    CHECK (status <> 'mismatched' OR paid_minor IS NOT NULL),
    CHECK ((paid_minor IS NULL) = (paid_currency IS NULL)
        AND (paid_minor IS NULL OR payment_ref IS NOT NULL AND paid_at IS NULL AND clawed_back = 0 AND frozen = 0))
);
INSERT INTO new_purchases (id, store_id, user_id, provider, provider_ref, payment_ref, attempt, version, automatic, status, credits,
        amount_minor, currency, checkout_url, reversed_minor, clawed_back, frozen, freezes, idempotency_key, request_hash, created_at, updated_at, paid_at)
    SELECT id, store_id, user_id, provider, provider_ref, payment_ref, attempt, version, automatic, status, credits,
        amount_minor, currency, checkout_url, reversed_minor, clawed_back, frozen, freezes, idempotency_key, request_hash, created_at, updated_at, paid_at
    FROM purchases;

CREATE TABLE new_billing_transactions (
    id           text        NOT NULL PRIMARY KEY,
    store_id     text        NOT NULL REFERENCES stores (id),
    purchase_id  text        REFERENCES new_purchases (id),
    type         text        NOT NULL CHECK (type IN ('payment', 'refund', 'dispute', 'reinstatement')),
    amount_minor integer     NOT NULL CHECK (amount_minor <> 0),
    currency     text        NOT NULL CHECK (length(currency) = 3),
    provider     text        NOT NULL CHECK (provider IN ('stripe', 'sandbox')),
    provider_ref text        NOT NULL,
    created_at   timestamp   NOT NULL,
    UNIQUE (provider, type, provider_ref)
);
INSERT INTO new_billing_transactions (id, store_id, purchase_id, type, amount_minor, currency, provider, provider_ref, created_at)
    SELECT id, store_id, purchase_id, type, amount_minor, currency, provider, provider_ref, created_at FROM billing_transactions;

CREATE TABLE new_purchase_reversals (
    provider       text      NOT NULL CHECK (provider IN ('stripe', 'sandbox')),
    provider_ref   text      NOT NULL,
    purchase_id    text      NOT NULL REFERENCES new_purchases (id),
    type           text      NOT NULL CHECK (type IN ('refund', 'dispute')),
    taken_minor    integer   NOT NULL CHECK (taken_minor >= 0),    -- money that is gone
    disputed_minor integer   NOT NULL CHECK (disputed_minor >= 0), -- money that may go
    changes        integer   NOT NULL CHECK (changes >= 0),        -- of taken_minor
    created_at     timestamp NOT NULL,
    updated_at     timestamp NOT NULL,
    PRIMARY KEY (provider, provider_ref)
);
INSERT INTO new_purchase_reversals (provider, provider_ref, purchase_id, type, taken_minor, disputed_minor, changes, created_at, updated_at)
    SELECT provider, provider_ref, purchase_id, type, taken_minor, disputed_minor, changes, created_at, updated_at FROM purchase_reversals;

DROP TABLE billing_transactions;
DROP TABLE purchase_reversals;
DROP TABLE purchases;
ALTER TABLE new_purchases RENAME TO purchases; -- and in what refers to it
ALTER TABLE new_billing_transactions RENAME TO billing_transactions;
ALTER TABLE new_purchase_reversals RENAME TO purchase_reversals;

CREATE INDEX billing_transactions_store ON billing_transactions (store_id, created_at);
CREATE UNIQUE INDEX purchases_payment ON purchases (provider, payment_ref);
CREATE INDEX purchases_store ON purchases (store_id, id);
CREATE INDEX purchases_pending ON purchases (id) WHERE status = 'pending';
CREATE INDEX purchases_mismatched ON purchases (id) WHERE status = 'mismatched';
CREATE INDEX purchases_automatic ON purchases (store_id, created_at) WHERE automatic;
-- One charge at a time for each store, whatever the callers do.
CREATE UNIQUE INDEX purchases_one_automatic ON purchases (store_id) WHERE automatic AND status = 'pending';
CREATE INDEX purchase_reversals_purchase ON purchase_reversals (purchase_id);

-- +goose StatementBegin
CREATE TRIGGER billing_transactions_no_update BEFORE UPDATE ON billing_transactions
BEGIN
    SELECT RAISE(ABORT, 'rows of billing_transactions are append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER billing_transactions_no_delete BEFORE DELETE ON billing_transactions
BEGIN
    SELECT RAISE(ABORT, 'rows of billing_transactions are append-only');
END;
-- +goose StatementEnd

-- A new reason to stop.
CREATE TABLE new_auto_recharges (
    store_id       text      NOT NULL PRIMARY KEY REFERENCES stores (id) ON DELETE CASCADE,
    user_id        text      NOT NULL REFERENCES users (id), -- who switched it on
    enabled        boolean   NOT NULL DEFAULT false,
    threshold      integer   NOT NULL DEFAULT 0 CHECK (threshold >= 0),
    credits        integer   NOT NULL DEFAULT 0 CHECK (credits >= 0),
    monthly_cap    integer   NOT NULL DEFAULT 0 CHECK (monthly_cap >= 0),
    stopped_reason text      CHECK (stopped_reason IN
        ('declined', 'authentication_required', 'refused', 'disputed', 'refunded', 'mismatched', 'not_permitted')),
    stopped_at     timestamp,
    customer_ref   text,
    card_ref       text,
    card_brand     text      NOT NULL DEFAULT '',
    card_last4     text      NOT NULL DEFAULT '',
    card_expires   text      NOT NULL DEFAULT '', -- YYYY-MM
    card_saved_at  timestamp,                     -- by the provider's clock
    updated_at     timestamp NOT NULL,
    CHECK (NOT enabled OR card_ref IS NOT NULL AND credits > 0 AND stopped_reason IS NULL)
);
INSERT INTO new_auto_recharges (store_id, user_id, enabled, threshold, credits, monthly_cap, stopped_reason, stopped_at, customer_ref, card_ref,
        card_brand, card_last4, card_expires, card_saved_at, updated_at)
    SELECT store_id, user_id, enabled, threshold, credits, monthly_cap, stopped_reason, stopped_at, customer_ref, card_ref,
        card_brand, card_last4, card_expires, card_saved_at, updated_at
    FROM auto_recharges;
DROP TABLE auto_recharges;
ALTER TABLE new_auto_recharges RENAME TO auto_recharges;
CREATE INDEX auto_recharges_enabled ON auto_recharges (store_id) WHERE enabled;
