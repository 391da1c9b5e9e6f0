-- +goose Up

-- version rises with every change of the row, also with those that are no
-- transaction, such as a hold: whoever follows the account sees what is new.
ALTER TABLE credit_balances ADD COLUMN version bigint NOT NULL DEFAULT 0 CHECK (version >= 0);
-- The part of the balance that is in lots.
ALTER TABLE credit_balances ADD COLUMN lotted bigint NOT NULL DEFAULT 0 CHECK (lotted >= 0 AND lotted <= balance);
-- A debt is repaid before anything else: who owes has nothing available.
ALTER TABLE credit_balances ADD CONSTRAINT credit_balances_debt_first CHECK (debt = 0 OR balance = reserved);

-- A movement may change the debt too, or alone: what is clawed back from an
-- empty account is owed.
ALTER TABLE credit_transactions ADD COLUMN debt_change bigint NOT NULL DEFAULT 0;
ALTER TABLE credit_transactions DROP CONSTRAINT credit_transactions_amount_check;
ALTER TABLE credit_transactions ADD CONSTRAINT credit_transactions_moves CHECK (amount <> 0 OR debt_change <> 0);
-- A row without a key needs no entry among the keys.
ALTER TABLE credit_transactions DROP CONSTRAINT credit_transactions_store_id_idempotency_key_key;
CREATE UNIQUE INDEX credit_transactions_key ON credit_transactions (store_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
-- As in audit_events: what somebody did outlives them. A row's store is that of
-- the balance which the same statement moves, and that has one: to ask for it
-- again with each row was a third of the cost of a batch.
ALTER TABLE credit_transactions DROP CONSTRAINT credit_transactions_user_id_fkey;
ALTER TABLE credit_transactions DROP CONSTRAINT credit_transactions_store_id_fkey;
ALTER TABLE credit_transactions ADD COLUMN hold_id uuid REFERENCES credit_holds (id);
-- A hold is captured once, whatever the callers do.
CREATE UNIQUE INDEX credit_transactions_hold ON credit_transactions (hold_id) WHERE hold_id IS NOT NULL;

ALTER TABLE credit_holds ADD COLUMN unit_price bigint CHECK (unit_price >= 0);
-- The key of the capture or release that ended the hold.
ALTER TABLE credit_holds ADD COLUMN resolution_key text;
ALTER TABLE credit_holds ADD COLUMN resolution_hash text;
CREATE UNIQUE INDEX credit_holds_resolution ON credit_holds (store_id, resolution_key) WHERE resolution_key IS NOT NULL;
CREATE INDEX credit_holds_open ON credit_holds (store_id) WHERE state = 'open';
CREATE INDEX credit_holds_store ON credit_holds (store_id, id);

-- Credits that expire, or are spent before or after others. All other
-- credits need no lot: they are what the balance has beyond lotted.
CREATE TABLE credit_lots (
    id         uuid        PRIMARY KEY,
    store_id   uuid        NOT NULL REFERENCES stores (id),
    seq        bigint      NOT NULL,
    priority   integer     NOT NULL CHECK (priority BETWEEN -100 AND 100),
    expires_at timestamptz,
    amount     bigint      NOT NULL CHECK (amount > 0),
    remaining  bigint      NOT NULL CHECK (remaining >= 0 AND remaining <= amount),
    UNIQUE (store_id, seq),
    FOREIGN KEY (store_id, seq) REFERENCES credit_transactions (store_id, seq)
);
CREATE INDEX credit_lots_open ON credit_lots (store_id) WHERE remaining > 0;
CREATE INDEX credit_lots_expiry ON credit_lots (expires_at) WHERE remaining > 0;

-- What a transaction took from a lot.
CREATE TABLE credit_lot_uses (
    lot_id   uuid   NOT NULL REFERENCES credit_lots (id),
    store_id uuid   NOT NULL,
    seq      bigint NOT NULL,
    amount   bigint NOT NULL CHECK (amount > 0),
    PRIMARY KEY (lot_id, seq),
    FOREIGN KEY (store_id, seq) REFERENCES credit_transactions (store_id, seq)
);
CREATE INDEX credit_lot_uses_transaction ON credit_lot_uses (store_id, seq);

-- Credits set aside while a payment is disputed.
CREATE TABLE credit_freezes (
    store_id    uuid        NOT NULL REFERENCES stores (id),
    reference   text        NOT NULL,
    amount      bigint      NOT NULL CHECK (amount >= 0),
    created_at  timestamptz NOT NULL,
    resolved_at timestamptz,
    PRIMARY KEY (store_id, reference)
);

CREATE TRIGGER credit_lot_uses_append_only BEFORE UPDATE OR DELETE ON credit_lot_uses
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER credit_lot_uses_no_truncate BEFORE TRUNCATE ON credit_lot_uses
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
