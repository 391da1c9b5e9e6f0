-- +goose Up

-- What the operator has set for one user. NULL is what the platform allows
-- everybody, 0 is no limit.
ALTER TABLE users ADD COLUMN quota_stores integer CHECK (quota_stores >= 0);
ALTER TABLE users ADD COLUMN quota_managed_databases integer CHECK (quota_managed_databases >= 0);

-- Slugs that a store has given up, by a rename or by its deletion. Until
-- kept_until only that store, or another one of its owners, may have the slug.
CREATE TABLE released_slugs (
    slug        text      NOT NULL PRIMARY KEY CHECK (length(slug) BETWEEN 1 AND 63),
    store_id    text      NOT NULL REFERENCES stores (id),
    released_at timestamp NOT NULL,
    kept_until  timestamp NOT NULL
);
CREATE INDEX released_slugs_store ON released_slugs (store_id);
CREATE INDEX released_slugs_expiry ON released_slugs (kept_until);
