-- +goose Up

-- How the shop behaves, one JSON value for each dotted name. "key" and
-- "value" are reserved in too many places to be column names.
CREATE TABLE IF NOT EXISTS settings (
    setting_key   VARCHAR(120) COLLATE utf8mb4_bin NOT NULL PRIMARY KEY
                  CHECK (setting_key <> '' AND setting_key = lower(setting_key) AND setting_key NOT LIKE '% %'),
    setting_value JSON         NOT NULL CHECK (json_valid(setting_value)),
    created_at    DATETIME(6)  NOT NULL,
    updated_at    DATETIME(6)  NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
