-- +goose Up

-- People ---------------------------------------------------------------

CREATE TABLE users (
    id             text        NOT NULL PRIMARY KEY,
    email          text        NOT NULL CHECK (length(email) BETWEEN 3 AND 254),
    password_hash  text        NOT NULL,
    first_name     text        NOT NULL,
    last_name      text        NOT NULL,
    role           text        NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    email_verified boolean     NOT NULL DEFAULT false,
    created_at     timestamp   NOT NULL,
    updated_at     timestamp   NOT NULL
);
CREATE UNIQUE INDEX users_email ON users (lower(email));

CREATE TABLE sessions (
    id           text        NOT NULL PRIMARY KEY,
    user_id      text        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    user_agent   text        NOT NULL DEFAULT '',
    address      text        NOT NULL DEFAULT '',
    created_at   timestamp   NOT NULL,
    last_used_at timestamp   NOT NULL,
    expires_at   timestamp   NOT NULL,
    revoked_at   timestamp
);
CREATE INDEX sessions_user ON sessions (user_id);

-- Spent tokens stay until their session ends: a second use of one is how
-- theft is noticed.
CREATE TABLE refresh_tokens (
    hash       text        NOT NULL PRIMARY KEY,
    session_id text        NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    created_at timestamp   NOT NULL,
    spent_at   timestamp
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);

-- Stores ---------------------------------------------------------------

CREATE TABLE stores (
    id              text        NOT NULL PRIMARY KEY,
    slug            text        NOT NULL CONSTRAINT stores_slug UNIQUE CHECK (length(slug) BETWEEN 1 AND 63),
    name            text        NOT NULL CHECK (length(name) BETWEEN 1 AND 120),
    status          text        NOT NULL CHECK (status IN
                    ('pending_database', 'provisioning', 'active', 'suspended', 'deleting', 'deleted')),
    created_by      text        NOT NULL REFERENCES users (id),
    idempotency_key text,
    request_hash    text,
    created_at      timestamp   NOT NULL,
    updated_at      timestamp   NOT NULL,
    delete_after    timestamp,
    UNIQUE (created_by, idempotency_key)
);

CREATE TABLE store_members (
    store_id   text        NOT NULL REFERENCES stores (id) ON DELETE CASCADE,
    user_id    text        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role       text        NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    created_at timestamp   NOT NULL,
    PRIMARY KEY (store_id, user_id)
);
CREATE INDEX store_members_user ON store_members (user_id);

CREATE TABLE api_keys (
    id           text        NOT NULL PRIMARY KEY,
    store_id     text        NOT NULL REFERENCES stores (id) ON DELETE CASCADE,
    created_by   text        NOT NULL REFERENCES users (id),
    name         text        NOT NULL,
    prefix       text        NOT NULL,
    hash         text        NOT NULL UNIQUE,
    scopes       text        NOT NULL,
    created_at   timestamp   NOT NULL,
    expires_at   timestamp,
    last_used_at timestamp,
    revoked_at   timestamp
);
CREATE INDEX api_keys_store ON api_keys (store_id);

CREATE TABLE store_hostnames (
    hostname    text        NOT NULL PRIMARY KEY CHECK (length(hostname) BETWEEN 1 AND 253 AND hostname = lower(hostname)),
    store_id    text        NOT NULL REFERENCES stores (id) ON DELETE CASCADE,
    is_primary  boolean     NOT NULL,
    custom      boolean     NOT NULL,
    verified_at timestamp,
    created_at  timestamp   NOT NULL
);
CREATE INDEX store_hostnames_store ON store_hostnames (store_id);
CREATE UNIQUE INDEX store_hostnames_one_primary ON store_hostnames (store_id) WHERE is_primary;

CREATE TABLE store_databases (
    store_id           text        NOT NULL PRIMARY KEY REFERENCES stores (id),
    kind               text        NOT NULL CHECK (kind IN ('managed', 'postgresql', 'mysql', 'supabase')),
    engine             text        NOT NULL CHECK (engine IN ('sqlite', 'postgresql', 'mysql')),
    host               text        NOT NULL,
    port               integer     NOT NULL CHECK (port BETWEEN 0 AND 65535),
    database_name      text        NOT NULL,
    credentials        text        NOT NULL,
    credential_version integer     NOT NULL CHECK (credential_version > 0),
    schema_version     integer     NOT NULL DEFAULT 0,
    status             text        NOT NULL CHECK (status IN ('unknown', 'ok', 'failed')),
    last_error         text,
    last_checked_at    timestamp,
    created_at         timestamp   NOT NULL,
    updated_at         timestamp   NOT NULL
);
CREATE INDEX store_databases_schema ON store_databases (schema_version);

-- Provisioning ---------------------------------------------------------

CREATE TABLE provisioning_runs (
    id            text        NOT NULL PRIMARY KEY,
    store_id      text        NOT NULL REFERENCES stores (id),
    state         text        NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed')),
    step          text        NOT NULL DEFAULT '',
    attempt       integer     NOT NULL CHECK (attempt > 0),
    error_code    text,
    error_message text,
    created_at    timestamp   NOT NULL,
    started_at    timestamp,
    finished_at   timestamp
);
CREATE INDEX provisioning_runs_store ON provisioning_runs (store_id, created_at);
-- One run at a time for each store, whatever the callers do.
CREATE UNIQUE INDEX provisioning_runs_one_open ON provisioning_runs (store_id) WHERE state IN ('queued', 'running');

CREATE TABLE provisioning_steps (
    run_id        text        NOT NULL REFERENCES provisioning_runs (id) ON DELETE CASCADE,
    position      integer     NOT NULL,
    name          text        NOT NULL,
    state         text        NOT NULL CHECK (state IN ('pending', 'running', 'succeeded', 'failed')),
    error_code    text,
    error_message text,
    started_at    timestamp,
    finished_at   timestamp,
    PRIMARY KEY (run_id, position)
);

-- Credits --------------------------------------------------------------
-- Amounts are integers: 1 credit = 10,000 units.

CREATE TABLE credit_balances (
    store_id           text        NOT NULL PRIMARY KEY REFERENCES stores (id),
    balance            integer     NOT NULL DEFAULT 0 CHECK (balance >= 0),
    reserved           integer     NOT NULL DEFAULT 0 CHECK (reserved >= 0 AND reserved <= balance),
    debt               integer     NOT NULL DEFAULT 0 CHECK (debt >= 0),
    seq                integer     NOT NULL DEFAULT 0 CHECK (seq >= 0),
    lifetime_purchased integer     NOT NULL DEFAULT 0 CHECK (lifetime_purchased >= 0),
    lifetime_spent     integer     NOT NULL DEFAULT 0 CHECK (lifetime_spent >= 0),
    updated_at         timestamp   NOT NULL
);

CREATE TABLE credit_transactions (
    id              text        NOT NULL PRIMARY KEY,
    store_id        text        NOT NULL REFERENCES stores (id),
    seq             integer     NOT NULL CHECK (seq > 0),
    type            text        NOT NULL CHECK (type IN
                    ('purchase', 'spend', 'capture', 'refund', 'dispute', 'adjustment', 'bonus', 'expiry')),
    amount          integer     NOT NULL CHECK (amount <> 0),
    balance_after   integer     NOT NULL CHECK (balance_after >= 0),
    service_key     text,
    quantity        integer     CHECK (quantity > 0),
    unit_price      integer     CHECK (unit_price >= 0),
    description     text        NOT NULL DEFAULT '',
    reference       text,
    user_id         text        REFERENCES users (id),
    idempotency_key text,
    request_hash    text,
    created_at      timestamp   NOT NULL,
    UNIQUE (store_id, seq),
    UNIQUE (store_id, idempotency_key)
);

CREATE TABLE credit_holds (
    id              text        NOT NULL PRIMARY KEY,
    store_id        text        NOT NULL REFERENCES stores (id),
    amount          integer     NOT NULL CHECK (amount > 0),
    captured        integer     NOT NULL DEFAULT 0 CHECK (captured >= 0 AND captured <= amount),
    state           text        NOT NULL CHECK (state IN ('open', 'captured', 'released', 'expired')),
    service_key     text,
    quantity        integer     CHECK (quantity > 0),
    description     text        NOT NULL DEFAULT '',
    user_id         text        REFERENCES users (id),
    idempotency_key text,
    request_hash    text,
    created_at      timestamp   NOT NULL,
    expires_at      timestamp   NOT NULL,
    resolved_at     timestamp,
    UNIQUE (store_id, idempotency_key)
);
CREATE INDEX credit_holds_expiry ON credit_holds (expires_at) WHERE state = 'open';

CREATE TABLE service_credit_costs (
    service_key    text        NOT NULL,
    effective_from timestamp   NOT NULL,
    unit_price     integer     NOT NULL CHECK (unit_price >= 0),
    unit           text        NOT NULL,
    description    text        NOT NULL,
    PRIMARY KEY (service_key, effective_from)
);

-- Payments -------------------------------------------------------------
-- Money is in the currency's minor unit (cents).

CREATE TABLE purchases (
    id              text        NOT NULL PRIMARY KEY,
    store_id        text        NOT NULL REFERENCES stores (id),
    user_id         text        NOT NULL REFERENCES users (id),
    provider        text        NOT NULL CHECK (provider IN ('stripe', 'sandbox')),
    provider_ref    text        NOT NULL,
    status          text        NOT NULL CHECK (status IN ('pending', 'paid', 'expired', 'refunded')),
    credits         integer     NOT NULL CHECK (credits > 0),
    amount_minor    integer     NOT NULL CHECK (amount_minor > 0),
    currency        text        NOT NULL CHECK (length(currency) = 3),
    checkout_url    text        NOT NULL,
    idempotency_key text,
    request_hash    text,
    created_at      timestamp   NOT NULL,
    updated_at      timestamp   NOT NULL,
    paid_at         timestamp,
    UNIQUE (provider, provider_ref),
    UNIQUE (store_id, idempotency_key)
);
CREATE INDEX purchases_store ON purchases (store_id, created_at);

CREATE TABLE billing_transactions (
    id           text        NOT NULL PRIMARY KEY,
    store_id     text        NOT NULL REFERENCES stores (id),
    purchase_id  text        REFERENCES purchases (id),
    type         text        NOT NULL CHECK (type IN ('payment', 'refund', 'dispute', 'reinstatement')),
    amount_minor integer     NOT NULL CHECK (amount_minor <> 0),
    currency     text        NOT NULL CHECK (length(currency) = 3),
    provider     text        NOT NULL CHECK (provider IN ('stripe', 'sandbox')),
    provider_ref text        NOT NULL,
    created_at   timestamp   NOT NULL,
    UNIQUE (provider, type, provider_ref)
);
CREATE INDEX billing_transactions_store ON billing_transactions (store_id, created_at);

CREATE TABLE stripe_events (
    id          text        NOT NULL PRIMARY KEY,
    type        text        NOT NULL,
    payload     text        NOT NULL,
    received_at timestamp   NOT NULL,
    applied_at  timestamp
);
CREATE INDEX stripe_events_unapplied ON stripe_events (received_at) WHERE applied_at IS NULL;

CREATE TABLE subscriptions (
    id                 text        NOT NULL PRIMARY KEY,
    store_id           text        NOT NULL REFERENCES stores (id),
    plan               text        NOT NULL,
    status             text        NOT NULL CHECK (status IN ('trialing', 'active', 'past_due', 'canceled')),
    provider           text        NOT NULL CHECK (provider IN ('stripe', 'sandbox')),
    provider_ref       text        NOT NULL,
    current_period_end timestamp   NOT NULL,
    created_at         timestamp   NOT NULL,
    updated_at         timestamp   NOT NULL,
    UNIQUE (provider, provider_ref)
);
CREATE INDEX subscriptions_store ON subscriptions (store_id);

-- Records --------------------------------------------------------------

CREATE TABLE usage_metrics (
    store_id     text        NOT NULL REFERENCES stores (id),
    metric       text        NOT NULL,
    period_start timestamp   NOT NULL,
    value        integer     NOT NULL CHECK (value >= 0),
    updated_at   timestamp   NOT NULL,
    PRIMARY KEY (store_id, metric, period_start)
);

CREATE TABLE audit_events (
    id         text        NOT NULL PRIMARY KEY,
    user_id    text,
    store_id   text,
    action     text        NOT NULL,
    outcome    text        NOT NULL CHECK (outcome IN ('success', 'denied', 'failed')),
    address    text        NOT NULL DEFAULT '',
    request_id text        NOT NULL DEFAULT '',
    details    text        NOT NULL DEFAULT '{}',
    created_at timestamp   NOT NULL
);
CREATE INDEX audit_events_store ON audit_events (store_id, created_at);

-- What happened cannot be rewritten, not even by a bug.

-- +goose StatementBegin
CREATE TRIGGER credit_transactions_no_update BEFORE UPDATE ON credit_transactions
BEGIN
    SELECT RAISE(ABORT, 'rows of credit_transactions are append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER credit_transactions_no_delete BEFORE DELETE ON credit_transactions
BEGIN
    SELECT RAISE(ABORT, 'rows of credit_transactions are append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER billing_transactions_no_update BEFORE UPDATE ON billing_transactions
BEGIN
    SELECT RAISE(ABORT, 'rows of billing_transactions are append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER billing_transactions_no_delete BEFORE DELETE ON billing_transactions
BEGIN
    SELECT RAISE(ABORT, 'rows of billing_transactions are append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_events_no_update BEFORE UPDATE ON audit_events
BEGIN
    SELECT RAISE(ABORT, 'rows of audit_events are append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_events_no_delete BEFORE DELETE ON audit_events
BEGIN
    SELECT RAISE(ABORT, 'rows of audit_events are append-only');
END;
-- +goose StatementEnd
