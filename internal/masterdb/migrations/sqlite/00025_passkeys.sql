-- +goose Up

-- Passkeys (WebAuthn credentials). At most 20 per user.
CREATE TABLE passkeys (
    id            text      NOT NULL PRIMARY KEY,
    user_id       text      NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    credential_id text      NOT NULL UNIQUE, -- base64url, chosen by the authenticator
    name          text      NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    credential    text      NOT NULL, -- JSON: the public key and what the authenticator said of itself
    sign_count    bigint    NOT NULL CHECK (sign_count >= 0), -- of the last use; 0: the authenticator does not count
    passwordless  boolean   NOT NULL DEFAULT true, -- false: only as second factor, since the password was reset
    created_at    timestamp NOT NULL,
    last_used_at  timestamp
);
CREATE INDEX passkeys_user ON passkeys (user_id, id);

-- Challenges that wait for an authenticator. A row is deleted when it is used.
CREATE TABLE passkey_challenges (
    hash       text      NOT NULL PRIMARY KEY,
    purpose    text      NOT NULL CHECK (purpose IN ('register', 'sign_in', 'second_factor')),
    user_id    text      REFERENCES users (id) ON DELETE CASCADE,
    session    text      NOT NULL, -- JSON: the challenge and what was asked for
    created_at timestamp NOT NULL,
    expires_at timestamp NOT NULL,
    CHECK ((purpose = 'sign_in') = (user_id IS NULL))
);
CREATE INDEX passkey_challenges_user ON passkey_challenges (user_id);
CREATE INDEX passkey_challenges_expiry ON passkey_challenges (expires_at);

-- Recovery codes belong to the user: they replace a lost passkey too.
CREATE TABLE recovery_codes_new (
    user_id text      NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash    text      NOT NULL,
    used_at timestamp,
    PRIMARY KEY (user_id, hash)
);
INSERT INTO recovery_codes_new (user_id, hash, used_at) SELECT user_id, hash, used_at FROM recovery_codes;
DROP TABLE recovery_codes;
ALTER TABLE recovery_codes_new RENAME TO recovery_codes;
