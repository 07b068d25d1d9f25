-- How far each ledger is known to go: one that lacks the last row was set back, and must not charge.
CREATE TABLE ledger_seen (
    ledger_id TEXT PRIMARY KEY,
    seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
