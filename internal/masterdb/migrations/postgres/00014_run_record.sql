-- +goose Up

-- How the steps of a run stand is told from its events, which hold all of it.
DROP TABLE provisioning_steps;
