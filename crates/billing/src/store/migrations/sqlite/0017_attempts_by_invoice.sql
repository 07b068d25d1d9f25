-- Keys are hashes: with an index of all keys each insert would write to another page. Only keys that are looked up
-- without an invoice are indexed: those of open, voided or rejected attempts. Other look-ups know invoice and number.
-- The key of a CHARGED or REFUSED attempt is unique because the invoice's reference and the number, from which it is
-- derived, are unique; `verify` derives it again. The rowid stays, because the previous version leases attempts by it.
-- That version still finds keys, by reading the table.

-- A decision names its invoice, so that a list of decisions looks up no keys. NULL in rows that the previous version
-- writes.
CREATE TABLE resolutions_by_invoice (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    charged INTEGER NOT NULL CHECK (charged IN (0, 1)),
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    attempt_from TEXT,
    attempt_to TEXT,
    invoice_from TEXT,
    invoice_to TEXT,
    invoice_id INTEGER REFERENCES invoices (id)
) STRICT;
INSERT INTO resolutions_by_invoice
SELECT r.id, r.key, r.charged, r.reason, r.actor, r.created_at, r.attempt_from, r.attempt_to, r.invoice_from,
    r.invoice_to, a.invoice_id
FROM resolutions AS r LEFT JOIN attempts AS a ON a.key = r.key;
DROP TABLE resolutions;
ALTER TABLE resolutions_by_invoice RENAME TO resolutions;

CREATE TABLE attempts_by_invoice (
    key TEXT NOT NULL,
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
    decline_class TEXT,
    decline_code TEXT,
    key_scheme INTEGER NOT NULL DEFAULT 1,
    UNIQUE (invoice_id, number)
) STRICT;
-- Copied in the order of the unique index, which is then written from its beginning to its end.
INSERT INTO attempts_by_invoice
SELECT key, invoice_id, number, customer_id, currency, amount_minor, state, sends, run_id, lease_until, created_at,
    settled_at, decline_class, decline_code, key_scheme
FROM attempts ORDER BY invoice_id, number;
DROP TABLE attempts;
ALTER TABLE attempts_by_invoice RENAME TO attempts;

CREATE UNIQUE INDEX attempts_keys ON attempts (key) WHERE state <> 'CHARGED' AND state <> 'REFUSED';
CREATE UNIQUE INDEX attempts_open ON attempts (invoice_id) WHERE state IN ('INTENT', 'IN_DOUBT');
CREATE UNIQUE INDEX attempts_charged ON attempts (invoice_id) WHERE state = 'CHARGED';
CREATE INDEX attempts_due ON attempts (lease_until) WHERE state IN ('INTENT', 'IN_DOUBT');
CREATE INDEX attempts_refused ON attempts (customer_id, settled_at) WHERE state = 'REFUSED';
CREATE INDEX attempts_hard ON attempts (customer_id, settled_at) WHERE decline_class = 'hard';

-- The triggers of the step `charged days`, which were dropped with the former table.
CREATE TRIGGER attempts_charged_in AFTER INSERT ON attempts WHEN NEW.state = 'CHARGED' BEGIN
    INSERT INTO charged_days VALUES (NEW.settled_at / 86400000, NEW.currency, 1, NEW.amount_minor)
        ON CONFLICT (day, currency) DO UPDATE SET charges = charges + 1,
            amount_minor = min(max(amount_minor + excluded.amount_minor, -9223372036854775808), 9223372036854775807);
END;
CREATE TRIGGER attempts_charged_out AFTER DELETE ON attempts WHEN OLD.state = 'CHARGED' BEGIN
    UPDATE charged_days SET charges = charges - 1, amount_minor = amount_minor - OLD.amount_minor
        WHERE day = OLD.settled_at / 86400000 AND currency = OLD.currency;
END;
CREATE TRIGGER attempts_charged_from AFTER UPDATE ON attempts WHEN OLD.state = 'CHARGED' BEGIN
    UPDATE charged_days SET charges = charges - 1, amount_minor = amount_minor - OLD.amount_minor
        WHERE day = OLD.settled_at / 86400000 AND currency = OLD.currency;
END;
CREATE TRIGGER attempts_charged_to AFTER UPDATE ON attempts WHEN NEW.state = 'CHARGED' BEGIN
    INSERT INTO charged_days VALUES (NEW.settled_at / 86400000, NEW.currency, 1, NEW.amount_minor)
        ON CONFLICT (day, currency) DO UPDATE SET charges = charges + 1,
            amount_minor = min(max(amount_minor + excluded.amount_minor, -9223372036854775808), 9223372036854775807);
END;
