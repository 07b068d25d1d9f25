-- Audit of the operators' decisions to settle with a replaced ledger.
CREATE TABLE ledger_acceptances (
    id INTEGER PRIMARY KEY,
    ledger_from TEXT,
    ledger_to TEXT NOT NULL,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
