-- +goose Up

-- When the person deleted their account. The row stays, without anything about
-- them: stores, purchases and the ledger refer to it.
ALTER TABLE users ADD COLUMN deleted_at timestamp;

-- Changes of an account's e-mail address. At most one per account is open.
CREATE TABLE email_changes (
    id               text      NOT NULL PRIMARY KEY,
    user_id          text      NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    old_email        text      NOT NULL CHECK (length(old_email) BETWEEN 3 AND 254),
    new_email        text      NOT NULL CHECK (length(new_email) BETWEEN 3 AND 254),
    old_confirmed_at timestamp, -- of an address that was never verified: when the change began
    new_confirmed_at timestamp,
    created_at       timestamp NOT NULL,
    expires_at       timestamp NOT NULL,
    ended_at         timestamp, -- confirmed, withdrawn or replaced by a later one
    applied          boolean   NOT NULL DEFAULT false,
    CHECK (NOT applied OR ended_at IS NOT NULL AND old_confirmed_at IS NOT NULL AND new_confirmed_at IS NOT NULL)
);
CREATE UNIQUE INDEX email_changes_open ON email_changes (user_id) WHERE ended_at IS NULL;
CREATE INDEX email_changes_user ON email_changes (user_id, id);
CREATE INDEX email_changes_expiry ON email_changes (expires_at);

-- The links that were mailed. A mail that is sent again has another one.
CREATE TABLE email_change_tokens (
    hash       text      NOT NULL PRIMARY KEY,
    change_id  text      NOT NULL REFERENCES email_changes (id) ON DELETE CASCADE,
    address    text      NOT NULL CHECK (address IN ('old', 'new')),
    created_at timestamp NOT NULL
);
CREATE INDEX email_change_tokens_change ON email_change_tokens (change_id);

-- Addresses of deleted accounts that are still to be told.
CREATE TABLE account_deletions (
    id         text      NOT NULL PRIMARY KEY,
    email      text      NOT NULL,
    created_at timestamp NOT NULL
);
CREATE INDEX account_deletions_created ON account_deletions (created_at);

-- What the platform stores about one person is found by these.
CREATE INDEX audit_events_user ON audit_events (user_id, id);
CREATE INDEX purchases_user ON purchases (user_id, id);
CREATE INDEX auto_recharges_user ON auto_recharges (user_id);
CREATE INDEX supabase_connections_user ON supabase_connections (user_id);
CREATE INDEX supabase_consents_user ON supabase_consents (user_id);
CREATE INDEX invitations_email ON invitations (email);
CREATE INDEX email_requests_email ON email_requests (email);
