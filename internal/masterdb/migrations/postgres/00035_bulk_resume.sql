-- +goose Up

-- Operators resume many stores at once. An older release would suspend them instead, so it
-- no longer runs on this schema.
ALTER TABLE bulk_actions DROP CONSTRAINT bulk_actions_kind_check;
ALTER TABLE bulk_actions ADD CONSTRAINT bulk_actions_kind_check CHECK (kind IN ('suspend', 'resume', 'migrate'));

UPDATE schema_compatibility SET oldest_binary = 35;
