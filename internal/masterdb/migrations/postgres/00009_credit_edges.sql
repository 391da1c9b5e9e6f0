-- +goose Up

-- Below this many units a store's owners are told, once each time; null: never.
ALTER TABLE credit_balances ADD COLUMN low_balance bigint CHECK (low_balance > 0);

-- Each time that what is available fell below low_balance. The row is written
-- with the movement that made it fall, whichever statement that was: neither a
-- short dip nor a crash hides one, and none counts twice.
CREATE TABLE credit_crossings (
    store_id     uuid        NOT NULL REFERENCES stores (id),
    version      bigint      NOT NULL, -- of the balance
    threshold    bigint      NOT NULL,
    available    bigint      NOT NULL,
    crossed_at   timestamptz NOT NULL,
    announced_at timestamptz,
    PRIMARY KEY (store_id, version)
);
CREATE INDEX credit_crossings_new ON credit_crossings (store_id) WHERE announced_at IS NULL;

-- +goose StatementBegin
CREATE FUNCTION note_credit_crossing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO credit_crossings (store_id, version, threshold, available, crossed_at)
    VALUES (NEW.store_id, NEW.version, NEW.low_balance, NEW.balance - NEW.reserved, NEW.updated_at);
    RETURN NULL;
END;
$$;
-- +goose StatementEnd

CREATE TRIGGER credit_balances_crossing AFTER UPDATE ON credit_balances FOR EACH ROW
    WHEN (OLD.balance - OLD.reserved >= NEW.low_balance AND NEW.balance - NEW.reserved < NEW.low_balance)
    EXECUTE FUNCTION note_credit_crossing();

-- How far the copy of an account in its store's own database is known to be.
CREATE TABLE credit_copies (
    store_id uuid    PRIMARY KEY REFERENCES stores (id),
    version  bigint  NOT NULL DEFAULT -1 CHECK (version >= -1), -- of the balance; -1: nothing is copied
    failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0)   -- in a row
);
