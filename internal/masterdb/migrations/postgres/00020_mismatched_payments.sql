-- +goose Up

-- A payment that is not what was sold: paid_minor and paid_currency are what
-- came. Such a purchase is mismatched until all of that has gone back, and then
-- refunded. No credits were granted for it.
ALTER TABLE purchases
    ADD COLUMN paid_minor    bigint CHECK (paid_minor > 0),
    ADD COLUMN paid_currency text CHECK (length(paid_currency) = 3);

-- The constraints that change have names that PostgreSQL chose.
-- +goose StatementBegin
DO $$
DECLARE
    old record;
BEGIN
    FOR old IN
        SELECT c.conname, c.conrelid::regclass AS place FROM pg_constraint c
        WHERE c.contype = 'c' AND (
            c.conrelid = 'purchases'::regclass AND (pg_get_constraintdef(c.oid) LIKE '%status%' OR pg_get_constraintdef(c.oid) LIKE '%reversed_minor%')
            OR c.conrelid = 'auto_recharges'::regclass AND pg_get_constraintdef(c.oid) LIKE '%not_permitted%')
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', old.place, old.conname);
    END LOOP;
END
$$;
-- +goose StatementEnd

ALTER TABLE purchases
    ADD CONSTRAINT purchases_status_check CHECK (status IN ('pending', 'paid', 'expired', 'refunded', 'mismatched')),
    ADD CONSTRAINT purchases_reversed_check CHECK (reversed_minor BETWEEN 0 AND coalesce(paid_minor, amount_minor)),
    ADD CONSTRAINT purchases_mismatched_check CHECK (status <> 'mismatched' OR paid_minor IS NOT NULL),
    ADD CONSTRAINT purchases_paid_check CHECK (
        (paid_minor IS NULL) = (paid_currency IS NULL)
        AND (paid_minor IS NULL OR payment_ref IS NOT NULL AND paid_at IS NULL AND clawed_back = 0 AND frozen = 0));
CREATE INDEX purchases_mismatched ON purchases (id) WHERE status = 'mismatched';

ALTER TABLE auto_recharges
    ADD CONSTRAINT auto_recharges_stopped_reason_check
    CHECK (stopped_reason IN ('declined', 'authentication_required', 'refused', 'disputed', 'refunded', 'mismatched', 'not_permitted'));
