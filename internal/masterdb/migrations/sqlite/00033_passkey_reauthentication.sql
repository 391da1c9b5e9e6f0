-- +goose Up

-- A passkey can confirm that it is the person. Challenges live for five minutes: those
-- that wait are given up.
DROP TABLE passkey_challenges;
CREATE TABLE passkey_challenges (
    hash       text        NOT NULL PRIMARY KEY,
    purpose    text        NOT NULL CHECK (purpose IN ('register', 'sign_in', 'second_factor', 'reauthenticate')),
    user_id    text        REFERENCES users (id) ON DELETE CASCADE,
    session    text        NOT NULL, -- JSON: the challenge and what was asked for
    created_at timestamp NOT NULL,
    expires_at timestamp NOT NULL,
    CHECK ((purpose = 'sign_in') = (user_id IS NULL))
);
CREATE INDEX passkey_challenges_user ON passkey_challenges (user_id);
CREATE INDEX passkey_challenges_expiry ON passkey_challenges (expires_at);
