-- A key is unique within its account. SQLite cannot drop the UNIQUE of a column, so the table is written anew. This is
-- not a step of the schema: programs that do not know it need the old UNIQUE, and must not open the file afterwards.
CREATE TABLE ledger_per_account (
    seq INTEGER PRIMARY KEY,
    key TEXT,
    account TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    reference TEXT,
    customer_id INTEGER NOT NULL,
    currency TEXT NOT NULL,
    amount_minor INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state = 'CHARGED' OR state = 'REFUSED' OR state = 'VOIDED'),
    route TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    fingerprint_version INTEGER NOT NULL DEFAULT 1,
    exponent INTEGER NOT NULL DEFAULT 2,
    decline_class TEXT,
    decline_code TEXT
) STRICT;
INSERT INTO ledger_per_account
    (seq, key, account, fingerprint, reference, customer_id, currency, amount_minor, state, route, created_at,
     fingerprint_version, exponent, decline_class, decline_code)
    SELECT seq, key, account, fingerprint, reference, customer_id, currency, amount_minor, state, route, created_at,
     fingerprint_version, exponent, decline_class, decline_code FROM ledger ORDER BY seq;
DROP TABLE ledger;
ALTER TABLE ledger_per_account RENAME TO ledger;
CREATE UNIQUE INDEX ledger_key_of_account ON ledger (key, account);
CREATE INDEX ledger_by_account ON ledger (account);
UPDATE migrations SET breaks_older = 1 WHERE name = 'requests';
