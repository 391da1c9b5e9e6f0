-- +goose Up

-- An address is stored in its canonical form (accounts.canonicalEmail) and
-- compared as it is: lower() knows other letters on each server. users_email
-- stays: no code can store two cases of one address, or read it slowly while an
-- older release still runs.
UPDATE users SET email = lower(email COLLATE "C") WHERE email <> lower(email COLLATE "C");
CREATE UNIQUE INDEX users_address ON users (email);

UPDATE invitations SET email = lower(email COLLATE "C") WHERE email <> lower(email COLLATE "C");
UPDATE email_requests SET email = lower(email COLLATE "C") WHERE email <> lower(email COLLATE "C");

-- What somebody has sent is looked for when it is to end.
CREATE INDEX invitations_sender ON invitations (invited_by);
CREATE INDEX api_keys_maker ON api_keys (created_by);

-- How many mails may leave for one key, such as a recipient or a sender:
-- see mail.Allowance.
CREATE TABLE mail_allowances (
    name    text   NOT NULL,
    key     text   NOT NULL,
    full_at bigint NOT NULL, -- microseconds since 1970: when nothing counts any more
    PRIMARY KEY (name, key)
);
CREATE INDEX mail_allowances_full ON mail_allowances (full_at);
