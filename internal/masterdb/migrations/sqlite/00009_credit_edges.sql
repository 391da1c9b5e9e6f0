-- +goose Up

-- Below this many units a store's owners are told, once each time; null: never.
ALTER TABLE credit_balances ADD COLUMN low_balance integer CHECK (low_balance > 0);

-- Each time that what is available fell below low_balance. The row is written
-- with the movement that made it fall, whichever statement that was: neither a
-- short dip nor a crash hides one, and none counts twice.
CREATE TABLE credit_crossings (
    store_id     text      NOT NULL REFERENCES stores (id),
    version      integer   NOT NULL, -- of the balance
    threshold    integer   NOT NULL,
    available    integer   NOT NULL,
    crossed_at   timestamp NOT NULL,
    announced_at timestamp,
    PRIMARY KEY (store_id, version)
);
CREATE INDEX credit_crossings_new ON credit_crossings (store_id) WHERE announced_at IS NULL;

-- +goose StatementBegin
CREATE TRIGGER credit_balances_crossing AFTER UPDATE ON credit_balances
WHEN OLD.balance - OLD.reserved >= NEW.low_balance AND NEW.balance - NEW.reserved < NEW.low_balance
BEGIN
    INSERT INTO credit_crossings (store_id, version, threshold, available, crossed_at)
    VALUES (NEW.store_id, NEW.version, NEW.low_balance, NEW.balance - NEW.reserved, NEW.updated_at);
END;
-- +goose StatementEnd

-- How far the copy of an account in its store's own database is known to be.
CREATE TABLE credit_copies (
    store_id text    NOT NULL PRIMARY KEY REFERENCES stores (id),
    version  integer NOT NULL DEFAULT -1 CHECK (version >= -1), -- of the balance; -1: nothing is copied
    failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0)   -- in a row
);
