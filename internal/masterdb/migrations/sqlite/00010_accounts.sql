-- +goose Up

-- An operator's session as this user.
ALTER TABLE sessions ADD COLUMN impersonator text REFERENCES users (id) ON DELETE CASCADE;
CREATE INDEX sessions_expiry ON sessions (expires_at);
CREATE INDEX sessions_impersonator ON sessions (impersonator) WHERE impersonator IS NOT NULL;

-- The log is read by store, and by event within it: ids sort by time.
DROP INDEX audit_events_store;
CREATE INDEX audit_events_store ON audit_events (store_id, id);
-- What an operator did in one request is written once.
CREATE INDEX audit_events_operator ON audit_events (request_id) WHERE action = 'operator.access';

CREATE TABLE invitations (
    id          text NOT NULL PRIMARY KEY,
    store_id    text        NOT NULL REFERENCES stores (id) ON DELETE CASCADE,
    email       text        NOT NULL CHECK (length(email) BETWEEN 3 AND 254),
    role        text        NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    invited_by  text        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at  timestamp NOT NULL,
    sent_at     timestamp NOT NULL, -- when it was last asked for
    expires_at  timestamp NOT NULL,
    accepted_at timestamp,
    revoked_at  timestamp
);
-- One at a time for each address, whatever the callers do.
CREATE UNIQUE INDEX invitations_open ON invitations (store_id, lower(email)) WHERE accepted_at IS NULL AND revoked_at IS NULL;
CREATE INDEX invitations_store ON invitations (store_id, created_at);

-- Somebody asked for a mail to that address, whether or not it has an account.
CREATE TABLE email_requests (
    id         text NOT NULL PRIMARY KEY,
    purpose    text        NOT NULL CHECK (purpose IN ('verify_email', 'reset_password')),
    email      text        NOT NULL,
    created_at timestamp NOT NULL
);
CREATE INDEX email_requests_created ON email_requests (created_at);

-- Tokens that are good for one use. A mail that is sent again has another one:
-- several may lead to the same.
CREATE TABLE one_time_tokens (
    hash          text NOT NULL PRIMARY KEY,
    purpose       text        NOT NULL CHECK (purpose IN ('verify_email', 'reset_password', 'invitation', 'second_factor')),
    user_id       text        REFERENCES users (id) ON DELETE CASCADE,
    invitation_id text        REFERENCES invitations (id) ON DELETE CASCADE,
    request_id    text        REFERENCES email_requests (id) ON DELETE CASCADE,
    created_at    timestamp NOT NULL,
    expires_at    timestamp NOT NULL,
    spent_at      timestamp,
    CHECK ((purpose = 'invitation') = (invitation_id IS NOT NULL)),
    CHECK ((purpose = 'invitation') = (user_id IS NULL))
);
CREATE INDEX one_time_tokens_user ON one_time_tokens (user_id);
CREATE INDEX one_time_tokens_invitation ON one_time_tokens (invitation_id);
CREATE INDEX one_time_tokens_request ON one_time_tokens (request_id);
CREATE INDEX one_time_tokens_expiry ON one_time_tokens (expires_at);

CREATE TABLE second_factors (
    user_id      text NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    secret       text        NOT NULL, -- sealed
    last_step    integer      NOT NULL DEFAULT 0, -- of the last code that was taken: none is taken twice
    failures     integer     NOT NULL DEFAULT 0 CHECK (failures >= 0), -- in a row
    locked_until timestamp,
    created_at   timestamp NOT NULL,
    confirmed_at timestamp
);

CREATE TABLE recovery_codes (
    user_id text        NOT NULL REFERENCES second_factors (user_id) ON DELETE CASCADE,
    hash    text        NOT NULL,
    used_at timestamp,
    PRIMARY KEY (user_id, hash)
);
