-- +goose Up

-- How the shop behaves, one JSON value for each dotted name. "key" and
-- "value" are reserved in too many places to be column names.
CREATE TABLE settings (
    setting_key   text      NOT NULL PRIMARY KEY CHECK (length(setting_key) BETWEEN 1 AND 120 AND setting_key = lower(setting_key) AND setting_key NOT LIKE '% %'),
    setting_value text      NOT NULL CHECK (json_valid(setting_value)),
    created_at    timestamp NOT NULL,
    updated_at    timestamp NOT NULL
);
