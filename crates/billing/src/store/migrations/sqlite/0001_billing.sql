-- `invoices_unpaid` serves claims and lists by state; PAID rows, which are most, are not in it.
-- `attempts_open` and `attempts_charged` are the last guard against a second charge.
-- The triggers update `invoice_counts` for statements typed by hand; the store's writer counts by itself.
-- State checks do not use `IN (...)`: SQLite builds a temporary table for it in each statement.
CREATE TABLE deployment (
    id TEXT NOT NULL,
    ledger_id TEXT
) STRICT;
CREATE UNIQUE INDEX deployment_one ON deployment ((1));

CREATE TABLE customers (
    id INTEGER PRIMARY KEY,
    currency TEXT NOT NULL
) STRICT;

CREATE TABLE invoices (
    id INTEGER PRIMARY KEY,
    reference TEXT NOT NULL UNIQUE,
    customer_id INTEGER NOT NULL REFERENCES customers (id),
    currency TEXT NOT NULL,
    amount_minor INTEGER NOT NULL CHECK (amount_minor BETWEEN -1000000000000000 AND 1000000000000000),
    state TEXT NOT NULL
        CHECK (state = 'PENDING' OR state = 'CHARGING' OR state = 'PAID' OR state = 'ATTENTION'),
    paid_by TEXT CHECK ((paid_by IS NOT NULL) = (state = 'PAID')),
    attention_reason TEXT CHECK ((attention_reason IS NOT NULL) = (state = 'ATTENTION')),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX invoices_unpaid ON invoices (state) WHERE state <> 'PAID';

CREATE TABLE invoice_counts (
    state TEXT PRIMARY KEY,
    invoices INTEGER NOT NULL CHECK (invoices >= 0)
) STRICT, WITHOUT ROWID;
INSERT INTO invoice_counts VALUES ('PENDING', 0), ('CHARGING', 0), ('PAID', 0), ('ATTENTION', 0);
CREATE TRIGGER invoices_counted_in AFTER INSERT ON invoices BEGIN
    UPDATE invoice_counts SET invoices = invoices + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER invoices_counted_out AFTER DELETE ON invoices BEGIN
    UPDATE invoice_counts SET invoices = invoices - 1 WHERE state = OLD.state;
END;
CREATE TRIGGER invoices_counted_over AFTER UPDATE OF state ON invoices WHEN OLD.state <> NEW.state BEGIN
    UPDATE invoice_counts SET invoices = invoices - 1 WHERE state = OLD.state;
    UPDATE invoice_counts SET invoices = invoices + 1 WHERE state = NEW.state;
END;

CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('running', 'finished')),
    started_at INTEGER NOT NULL,
    finished_at INTEGER CHECK ((finished_at IS NOT NULL) = (state = 'finished')),
    lease_until INTEGER NOT NULL,
    total INTEGER NOT NULL DEFAULT 0,
    attempted INTEGER NOT NULL DEFAULT 0,
    paid INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    rejected INTEGER NOT NULL DEFAULT 0,
    in_doubt INTEGER NOT NULL DEFAULT 0,
    not_sent INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX runs_unfinished ON runs (state) WHERE state = 'running';

CREATE TABLE attempts (
    key TEXT NOT NULL PRIMARY KEY,
    invoice_id INTEGER NOT NULL REFERENCES invoices (id),
    number INTEGER NOT NULL CHECK (number >= 1),
    customer_id INTEGER NOT NULL,
    currency TEXT NOT NULL,
    amount_minor INTEGER NOT NULL,
    state TEXT NOT NULL
        CHECK (state = 'INTENT' OR state = 'CHARGED' OR state = 'REFUSED' OR state = 'REJECTED'
            OR state = 'IN_DOUBT' OR state = 'VOIDED'),
    sends INTEGER NOT NULL CHECK (sends >= 0),
    run_id INTEGER NOT NULL REFERENCES runs (id),
    lease_until INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    settled_at INTEGER CHECK ((settled_at IS NULL) = (state IN ('INTENT', 'IN_DOUBT'))),
    UNIQUE (invoice_id, number)
) STRICT;
CREATE UNIQUE INDEX attempts_open ON attempts (invoice_id) WHERE state IN ('INTENT', 'IN_DOUBT');
CREATE UNIQUE INDEX attempts_charged ON attempts (invoice_id) WHERE state = 'CHARGED';
CREATE INDEX attempts_due ON attempts (lease_until) WHERE state IN ('INTENT', 'IN_DOUBT');

CREATE TABLE resolutions (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL REFERENCES attempts (key),
    charged INTEGER NOT NULL CHECK (charged IN (0, 1)),
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
