-- Subscriptions, the schedule that invoices them, and columns for later steps of charging, in one step. All new columns
-- are optional or have a default, so the previous version can still write rows.
ALTER TABLE customers ADD COLUMN reference TEXT;
ALTER TABLE customers ADD COLUMN network TEXT NOT NULL DEFAULT 'none';
ALTER TABLE customers ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX customers_reference ON customers (reference) WHERE reference IS NOT NULL;

-- `due_at` and `subscription_id` are set if the schedule made the invoice. `next_attempt_at` is the time from which a
-- scheduled run claims the invoice; NULL for every other invoice, and after its first claim.
ALTER TABLE invoices ADD COLUMN due_at INTEGER;
ALTER TABLE invoices ADD COLUMN next_attempt_at INTEGER;
ALTER TABLE invoices ADD COLUMN subscription_id INTEGER;
ALTER TABLE invoices ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
CREATE INDEX invoices_scheduled ON invoices (next_attempt_at)
    WHERE next_attempt_at IS NOT NULL AND state = 'PENDING';

ALTER TABLE attempts ADD COLUMN decline_class TEXT;
ALTER TABLE attempts ADD COLUMN decline_code TEXT;
ALTER TABLE attempts ADD COLUMN key_scheme INTEGER NOT NULL DEFAULT 1;

-- `filter`: the invoices that a run claims (JSON), NULL for all. `amounts_left`, `count_left`: the rest of its limits.
ALTER TABLE runs ADD COLUMN filter TEXT;
ALTER TABLE runs ADD COLUMN count_left INTEGER;
ALTER TABLE runs ADD COLUMN amounts_left TEXT;
ALTER TABLE runs ADD COLUMN reason TEXT;

-- Dates are YYYY-MM-DD. `next_on`, `next_at`: the first period without an invoice, and its instant. `last_on`: the last
-- period with an invoice.
CREATE TABLE subscriptions (
    id INTEGER PRIMARY KEY,
    reference TEXT NOT NULL UNIQUE,
    customer_id INTEGER NOT NULL REFERENCES customers (id),
    currency TEXT NOT NULL,
    anchor_day INTEGER NOT NULL CHECK (anchor_day BETWEEN 1 AND 31),
    every_months INTEGER NOT NULL CHECK (every_months >= 1),
    zone TEXT NOT NULL,
    at TEXT NOT NULL,
    starts_on TEXT NOT NULL,
    ends_on TEXT,
    holidays TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state = 'active' OR state = 'paused' OR state = 'ended'),
    next_on TEXT,
    next_at INTEGER CHECK ((next_at IS NULL) = (next_on IS NULL)),
    last_on TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX subscriptions_due ON subscriptions (next_on, next_at, id)
    WHERE state = 'active' AND next_on IS NOT NULL;

CREATE TABLE prices (
    subscription_id INTEGER NOT NULL REFERENCES subscriptions (id),
    from_on TEXT NOT NULL,
    amount_minor INTEGER NOT NULL CHECK (amount_minor BETWEEN 0 AND 1000000000000000),
    PRIMARY KEY (subscription_id, from_on)
) STRICT, WITHOUT ROWID;

-- One row for each date on which a schedule has periods. `cursor_at`, `cursor_id`: the last period with an invoice.
CREATE TABLE schedule_runs (
    schedule TEXT NOT NULL,
    period_on TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state = 'waiting' OR state = 'running' OR state = 'finished'),
    reason TEXT,
    planned TEXT NOT NULL,
    invoices INTEGER NOT NULL DEFAULT 0,
    skipped INTEGER NOT NULL DEFAULT 0,
    late_ms INTEGER NOT NULL DEFAULT 0,
    cursor_at INTEGER,
    cursor_id INTEGER,
    zone_data TEXT NOT NULL,
    confirmed_by TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (schedule, period_on)
) STRICT, WITHOUT ROWID;

-- Decisions of operators on invoices, customers, subscriptions and charging as a whole: appended, never changed.
CREATE TABLE operator_actions (
    id INTEGER PRIMARY KEY,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX operator_actions_of ON operator_actions (subject, id);

-- At most one row: while it exists, nothing is charged.
CREATE TABLE halt (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- An invoice may be CANCELLED. SQLite cannot change a CHECK, and copying a large table takes long; all stored rows
-- satisfy the wider rule. `RESET` makes this connection read the schema again; other connections do so by its version.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
SET sql = replace(sql, 'OR state = ''ATTENTION''', 'OR state = ''ATTENTION'' OR state = ''CANCELLED''')
WHERE type = 'table' AND name = 'invoices';
PRAGMA writable_schema = RESET;
