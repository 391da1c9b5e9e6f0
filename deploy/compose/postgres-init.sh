#!/bin/sh
# Makes the roles and the database of the platform in a new PostgreSQL. The image's
# entry point runs it once, before the server accepts connections.
set -eu

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
	--set "master_password=$MASTER_DB_PASSWORD" --set "managed_password=$MANAGED_DB_PASSWORD" <<'SQL'
CREATE ROLE stoa_platform LOGIN PASSWORD :'master_password';
CREATE DATABASE stoa_platform OWNER stoa_platform;
REVOKE CONNECT, TEMPORARY ON DATABASE stoa_platform FROM PUBLIC;
-- Makes a database and a role for each managed store.
CREATE ROLE stoa_managed LOGIN CREATEDB CREATEROLE PASSWORD :'managed_password';
SQL
