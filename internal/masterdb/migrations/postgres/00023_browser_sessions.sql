-- +goose Up

-- The session of a browser has one token, a cookie, instead of access and
-- refresh tokens. Its hash is stored.
ALTER TABLE sessions ADD COLUMN cookie_hash text;
CREATE UNIQUE INDEX sessions_cookie ON sessions (cookie_hash) WHERE cookie_hash IS NOT NULL;

-- When the user last gave their password or second factor in this session.
ALTER TABLE sessions ADD COLUMN authenticated_at timestamptz;
