-- +goose Up

-- The profile of the one store this database belongs to. single_row keeps it
-- the only one, so that two stores can never share a database by mistake.
-- An optional text that is not given is '', never NULL.
--
-- In all tables, what is looked up or unique (ids, slugs, codes) has a binary
-- collation, so that it compares byte by byte as on the other engines. Only
-- ids are ascii: a search for "größe" in an ascii column is an error.
-- json_valid is for MariaDB, where JSON is text.
CREATE TABLE IF NOT EXISTS stores (
    id            CHAR(36)      CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    single_row    SMALLINT      NOT NULL DEFAULT 1 CHECK (single_row = 1),
    name          VARCHAR(120)  NOT NULL CHECK (name <> ''),
    slug          VARCHAR(63)   COLLATE utf8mb4_bin NOT NULL
                  CHECK (slug <> '' AND slug = lower(slug) AND slug NOT LIKE '% %'),
    description   VARCHAR(2000) NOT NULL,
    contact_email VARCHAR(254)  NOT NULL,
    contact_phone VARCHAR(40)   NOT NULL,
    website       VARCHAR(2048) NOT NULL,
    address_line1 VARCHAR(200)  NOT NULL,
    address_line2 VARCHAR(200)  NOT NULL,
    city          VARCHAR(120)  NOT NULL,
    region        VARCHAR(120)  NOT NULL,
    postal_code   VARCHAR(20)   NOT NULL,
    country       VARCHAR(2)    COLLATE utf8mb4_bin NOT NULL CHECK (char_length(country) IN (0, 2)),
    currency      VARCHAR(3)    COLLATE utf8mb4_bin NOT NULL CHECK (char_length(currency) = 3),
    timezone      VARCHAR(64)   COLLATE utf8mb4_bin NOT NULL CHECK (timezone <> ''),
    locale        VARCHAR(35)   COLLATE utf8mb4_bin NOT NULL CHECK (locale <> ''),
    theme         JSON          NOT NULL CHECK (json_valid(theme) AND json_type(theme) = 'OBJECT'),
    settings      JSON          NOT NULL CHECK (json_valid(settings) AND json_type(settings) = 'OBJECT'),
    logo_url      VARCHAR(2048) NOT NULL,
    created_at    DATETIME(6)   NOT NULL,
    updated_at    DATETIME(6)   NOT NULL,
    UNIQUE KEY stores_single_row (single_row),
    UNIQUE KEY stores_slug (slug)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
