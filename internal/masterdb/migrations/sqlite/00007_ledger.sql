-- +goose Up

-- version rises with every change of the row, also with those that are no
-- transaction, such as a hold: whoever follows the account sees what is new.
-- A debt is repaid before anything else: who owes has nothing available.
ALTER TABLE credit_balances ADD COLUMN version integer NOT NULL DEFAULT 0 CHECK (version >= 0)
    CONSTRAINT credit_balances_debt_first CHECK (debt = 0 OR balance = reserved);
-- The part of the balance that is in lots.
ALTER TABLE credit_balances ADD COLUMN lotted integer NOT NULL DEFAULT 0 CHECK (lotted >= 0 AND lotted <= balance);

ALTER TABLE credit_holds ADD COLUMN unit_price integer CHECK (unit_price >= 0);
-- The key of the capture or release that ended the hold.
ALTER TABLE credit_holds ADD COLUMN resolution_key text;
ALTER TABLE credit_holds ADD COLUMN resolution_hash text;
CREATE UNIQUE INDEX credit_holds_resolution ON credit_holds (store_id, resolution_key) WHERE resolution_key IS NOT NULL;
CREATE INDEX credit_holds_open ON credit_holds (store_id) WHERE state = 'open';
CREATE INDEX credit_holds_store ON credit_holds (store_id, id);

-- A movement may change the debt too, or alone: what is clawed back from an
-- empty account is owed. SQLite changes a constraint by making the table anew.
CREATE TABLE new_credit_transactions (
    id              text        NOT NULL PRIMARY KEY,
    store_id        text        NOT NULL, -- that of the balance which moves with it
    seq             integer     NOT NULL CHECK (seq > 0),
    type            text        NOT NULL CHECK (type IN
                    ('purchase', 'spend', 'capture', 'refund', 'dispute', 'adjustment', 'bonus', 'expiry')),
    amount          integer     NOT NULL,
    balance_after   integer     NOT NULL CHECK (balance_after >= 0),
    debt_change     integer     NOT NULL DEFAULT 0,
    service_key     text,
    quantity        integer     CHECK (quantity > 0),
    unit_price      integer     CHECK (unit_price >= 0),
    description     text        NOT NULL DEFAULT '',
    reference       text,
    user_id         text, -- as in audit_events: what somebody did outlives them
    hold_id         text        REFERENCES credit_holds (id),
    idempotency_key text,
    request_hash    text,
    created_at      timestamp   NOT NULL,
    UNIQUE (store_id, seq),
    CONSTRAINT credit_transactions_moves CHECK (amount <> 0 OR debt_change <> 0)
);
INSERT INTO new_credit_transactions (id, store_id, seq, type, amount, balance_after, service_key, quantity, unit_price,
        description, reference, user_id, idempotency_key, request_hash, created_at)
    SELECT id, store_id, seq, type, amount, balance_after, service_key, quantity, unit_price,
        description, reference, user_id, idempotency_key, request_hash, created_at
    FROM credit_transactions;
DROP TABLE credit_transactions;
ALTER TABLE new_credit_transactions RENAME TO credit_transactions;
-- A row without a key needs no entry among the keys.
CREATE UNIQUE INDEX credit_transactions_key ON credit_transactions (store_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
-- A hold is captured once, whatever the callers do.
CREATE UNIQUE INDEX credit_transactions_hold ON credit_transactions (hold_id) WHERE hold_id IS NOT NULL;

-- Credits that expire, or are spent before or after others. All other
-- credits need no lot: they are what the balance has beyond lotted.
CREATE TABLE credit_lots (
    id         text      NOT NULL PRIMARY KEY,
    store_id   text      NOT NULL REFERENCES stores (id),
    seq        integer   NOT NULL,
    priority   integer   NOT NULL CHECK (priority BETWEEN -100 AND 100),
    expires_at timestamp,
    amount     integer   NOT NULL CHECK (amount > 0),
    remaining  integer   NOT NULL CHECK (remaining >= 0 AND remaining <= amount),
    UNIQUE (store_id, seq),
    FOREIGN KEY (store_id, seq) REFERENCES credit_transactions (store_id, seq)
);
CREATE INDEX credit_lots_open ON credit_lots (store_id) WHERE remaining > 0;
CREATE INDEX credit_lots_expiry ON credit_lots (expires_at) WHERE remaining > 0;

-- What a transaction took from a lot.
CREATE TABLE credit_lot_uses (
    lot_id   text    NOT NULL REFERENCES credit_lots (id),
    store_id text    NOT NULL,
    seq      integer NOT NULL,
    amount   integer NOT NULL CHECK (amount > 0),
    PRIMARY KEY (lot_id, seq),
    FOREIGN KEY (store_id, seq) REFERENCES credit_transactions (store_id, seq)
);
CREATE INDEX credit_lot_uses_transaction ON credit_lot_uses (store_id, seq);

-- Credits set aside while a payment is disputed.
CREATE TABLE credit_freezes (
    store_id    text      NOT NULL REFERENCES stores (id),
    reference   text      NOT NULL,
    amount      integer   NOT NULL CHECK (amount >= 0),
    created_at  timestamp NOT NULL,
    resolved_at timestamp,
    PRIMARY KEY (store_id, reference)
);

-- +goose StatementBegin
CREATE TRIGGER credit_transactions_no_update BEFORE UPDATE ON credit_transactions
BEGIN
    SELECT RAISE(ABORT, 'rows of credit_transactions are append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER credit_transactions_no_delete BEFORE DELETE ON credit_transactions
BEGIN
    SELECT RAISE(ABORT, 'rows of credit_transactions are append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER credit_lot_uses_no_update BEFORE UPDATE ON credit_lot_uses
BEGIN
    SELECT RAISE(ABORT, 'rows of credit_lot_uses are append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER credit_lot_uses_no_delete BEFORE DELETE ON credit_lot_uses
BEGIN
    SELECT RAISE(ABORT, 'rows of credit_lot_uses are append-only');
END;
-- +goose StatementEnd
