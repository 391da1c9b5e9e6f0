-- +goose Up

-- The account as a call with an idempotency key left it, for the repetitions of the call: a JSON
-- array of balance, reserved, debt, lifetime purchased and lifetime spent.
ALTER TABLE credit_transactions ADD COLUMN account_after TEXT;
ALTER TABLE credit_holds ADD COLUMN account_after TEXT;
ALTER TABLE credit_holds ADD COLUMN account_after_resolution TEXT;
