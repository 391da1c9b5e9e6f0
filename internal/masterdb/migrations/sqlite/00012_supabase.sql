-- +goose Up

-- Consents that were asked for and have not come back.
CREATE TABLE supabase_consents (
    id         text NOT NULL PRIMARY KEY,
    store_id   text NOT NULL REFERENCES stores (id) ON DELETE CASCADE,
    user_id    text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at timestamp NOT NULL,
    expires_at timestamp NOT NULL
);
CREATE INDEX supabase_consents_expiry ON supabase_consents (expires_at);

-- A claim is the right to spend the refresh token. One that was not given up
-- means that nobody knows whether the token is spent.
CREATE TABLE supabase_connections (
    store_id      text NOT NULL PRIMARY KEY REFERENCES stores (id) ON DELETE CASCADE,
    user_id       text NOT NULL REFERENCES users (id), -- who consented
    state         text NOT NULL CHECK (state IN ('connected', 'reconnect')),
    reason        text CHECK (reason IN ('refused', 'answer_lost')),
    tokens        text NOT NULL, -- sealed; '' when they are of no more use
    version       integer NOT NULL CHECK (version > 0), -- of the tokens
    expires_at    timestamp NOT NULL, -- of the access token
    claimed_by    text,
    claimed_until timestamp,
    created_at    timestamp NOT NULL,
    updated_at    timestamp NOT NULL,
    CHECK ((state = 'reconnect') = (reason IS NOT NULL)),
    CHECK ((state = 'reconnect') = (tokens = ''))
);

-- The project that a store's database is, or is to be, in.
CREATE TABLE supabase_projects (
    store_id     text NOT NULL PRIMARY KEY REFERENCES stores (id) ON DELETE CASCADE,
    ref          text, -- not known before the project is made
    organization text NOT NULL DEFAULT '',
    name         text NOT NULL DEFAULT '',
    region       text NOT NULL DEFAULT '',
    secrets      text NOT NULL DEFAULT '', -- sealed, until the store has its credentials
    requested_at timestamp, -- when the project was last asked for, without an answer yet
    created_at   timestamp NOT NULL,
    CHECK (ref IS NOT NULL OR organization <> '' AND name <> '' AND region <> '')
);

-- Whether the run's first step is to make a role in such a project.
ALTER TABLE provisioning_runs ADD COLUMN in_project boolean NOT NULL DEFAULT false;
