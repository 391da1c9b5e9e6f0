-- +goose Up

-- The profile of the one store this database belongs to. single_row keeps it
-- the only one, so that two stores can never share a database by mistake.
-- An optional text that is not given is '', never NULL.
CREATE TABLE stores (
    id            text      NOT NULL PRIMARY KEY,
    single_row    integer   NOT NULL DEFAULT 1 UNIQUE CHECK (single_row = 1),
    name          text      NOT NULL CHECK (length(name) BETWEEN 1 AND 120),
    slug          text      NOT NULL UNIQUE CHECK (length(slug) BETWEEN 1 AND 63 AND slug = lower(slug) AND slug NOT LIKE '% %'),
    description   text      NOT NULL CHECK (length(description) <= 2000),
    contact_email text      NOT NULL CHECK (length(contact_email) <= 254),
    contact_phone text      NOT NULL CHECK (length(contact_phone) <= 40),
    website       text      NOT NULL CHECK (length(website) <= 2048),
    address_line1 text      NOT NULL CHECK (length(address_line1) <= 200),
    address_line2 text      NOT NULL CHECK (length(address_line2) <= 200),
    city          text      NOT NULL CHECK (length(city) <= 120),
    region        text      NOT NULL CHECK (length(region) <= 120),
    postal_code   text      NOT NULL CHECK (length(postal_code) <= 20),
    country       text      NOT NULL CHECK (length(country) IN (0, 2)),
    currency      text      NOT NULL CHECK (length(currency) = 3),
    timezone      text      NOT NULL CHECK (length(timezone) BETWEEN 1 AND 64),
    locale        text      NOT NULL CHECK (length(locale) BETWEEN 1 AND 35),
    theme         text      NOT NULL CHECK (json_type(theme) = 'object'),
    settings      text      NOT NULL CHECK (json_type(settings) = 'object'),
    logo_url      text      NOT NULL CHECK (length(logo_url) <= 2048),
    created_at    timestamp NOT NULL,
    updated_at    timestamp NOT NULL
);
