-- +goose Up

-- The opening price list, in units of 1/10,000 credit. A new price is a new
-- row with a later effective_from; rows in force are never changed, so that
-- every past spend can be explained.

INSERT INTO service_credit_costs (service_key, effective_from, unit_price, unit, description) VALUES
    ('api_call',            '2026-01-01 00:00:00+00:00',     10, 'call',     'A call to the platform API by an app of the store'),
    ('content_generation',  '2026-01-01 00:00:00+00:00',  50000, 'text',     'A product or page text written by a model'),
    ('email_send',          '2026-01-01 00:00:00+00:00',   1000, 'email',    'An email sent to a customer'),
    ('image_generation',    '2026-01-01 00:00:00+00:00',  80000, 'image',    'A product image made by a model'),
    ('image_processing',    '2026-01-01 00:00:00+00:00',   5000, 'image',    'An image resized, cut out or compressed'),
    ('product_export',      '2026-01-01 00:00:00+00:00',    500, 'item',     'A product written to an export'),
    ('product_import',      '2026-01-01 00:00:00+00:00',   1000, 'item',     'A product read from an import'),
    ('product_translation', '2026-01-01 00:00:00+00:00',  20000, 'item',     'A product translated into one language'),
    ('storage',             '2026-01-01 00:00:00+00:00',    100, 'MB-month', 'A megabyte of files kept for a month');
