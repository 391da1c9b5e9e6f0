-- +goose Up

-- A form that is sent twice makes one API key.
ALTER TABLE api_keys ADD COLUMN form_key text;
CREATE UNIQUE INDEX api_keys_form ON api_keys (created_by, form_key) WHERE form_key IS NOT NULL;
