-- +goose Up

-- How the shop behaves, one JSON value for each dotted name. "key" and
-- "value" are reserved in too many places to be column names.
CREATE TABLE settings (
    setting_key   varchar(120) PRIMARY KEY CHECK (setting_key <> '' AND setting_key = lower(setting_key) AND setting_key NOT LIKE '% %'),
    setting_value jsonb        NOT NULL,
    created_at    timestamptz  NOT NULL,
    updated_at    timestamptz  NOT NULL
);
