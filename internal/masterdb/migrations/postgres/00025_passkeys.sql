-- +goose Up

-- Passkeys (WebAuthn credentials). At most 20 per user.
CREATE TABLE passkeys (
    id            uuid        NOT NULL PRIMARY KEY,
    user_id       uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    credential_id text        NOT NULL UNIQUE, -- base64url, chosen by the authenticator
    name          text        NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    credential    text        NOT NULL, -- JSON: the public key and what the authenticator said of itself
    sign_count    bigint      NOT NULL CHECK (sign_count >= 0), -- of the last use; 0: the authenticator does not count
    passwordless  boolean     NOT NULL DEFAULT true, -- false: only as second factor, since the password was reset
    created_at    timestamptz NOT NULL,
    last_used_at  timestamptz
);
CREATE INDEX passkeys_user ON passkeys (user_id, id);

-- Challenges that wait for an authenticator. A row is deleted when it is used.
CREATE TABLE passkey_challenges (
    hash       text        NOT NULL PRIMARY KEY,
    purpose    text        NOT NULL CHECK (purpose IN ('register', 'sign_in', 'second_factor')),
    user_id    uuid        REFERENCES users (id) ON DELETE CASCADE,
    session    text        NOT NULL, -- JSON: the challenge and what was asked for
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CHECK ((purpose = 'sign_in') = (user_id IS NULL))
);
CREATE INDEX passkey_challenges_user ON passkey_challenges (user_id);
CREATE INDEX passkey_challenges_expiry ON passkey_challenges (expires_at);

-- Recovery codes belong to the user: they replace a lost passkey too.
ALTER TABLE recovery_codes DROP CONSTRAINT recovery_codes_user_id_fkey;
ALTER TABLE recovery_codes ADD FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE;
