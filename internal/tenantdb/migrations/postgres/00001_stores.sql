-- +goose Up

-- The profile of the one store this database belongs to. single_row keeps it
-- the only one, so that two stores can never share a database by mistake.
-- An optional text that is not given is '', never NULL.
CREATE TABLE stores (
    id            uuid          PRIMARY KEY,
    single_row    smallint      NOT NULL DEFAULT 1 UNIQUE CHECK (single_row = 1),
    name          varchar(120)  NOT NULL CHECK (name <> ''),
    slug          varchar(63)   NOT NULL UNIQUE CHECK (slug <> '' AND slug = lower(slug) AND slug NOT LIKE '% %'),
    description   varchar(2000) NOT NULL,
    contact_email varchar(254)  NOT NULL,
    contact_phone varchar(40)   NOT NULL,
    website       varchar(2048) NOT NULL,
    address_line1 varchar(200)  NOT NULL,
    address_line2 varchar(200)  NOT NULL,
    city          varchar(120)  NOT NULL,
    region        varchar(120)  NOT NULL,
    postal_code   varchar(20)   NOT NULL,
    country       varchar(2)    NOT NULL CHECK (length(country) IN (0, 2)),
    currency      varchar(3)    NOT NULL CHECK (length(currency) = 3),
    timezone      varchar(64)   NOT NULL CHECK (timezone <> ''),
    locale        varchar(35)   NOT NULL CHECK (locale <> ''),
    theme         jsonb         NOT NULL CHECK (jsonb_typeof(theme) = 'object'),
    settings      jsonb         NOT NULL CHECK (jsonb_typeof(settings) = 'object'),
    logo_url      varchar(2048) NOT NULL,
    created_at    timestamptz   NOT NULL,
    updated_at    timestamptz   NOT NULL
);
