-- +goose Up

-- Tokens of connections to Supabase that have ended, until they are revoked there. The id
-- is the store's id, a slash and a random part.
CREATE TABLE supabase_revocations (
    id         text        PRIMARY KEY,
    tokens     text        NOT NULL, -- sealed, as in supabase_connections
    attempts   integer     NOT NULL DEFAULT 0,
    next_at    timestamptz NOT NULL,
    created_at timestamptz NOT NULL
);
