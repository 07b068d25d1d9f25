-- The last known row of each ledger. A ledger that lacks this row was set back, and must not charge.
CREATE TABLE ledger_seen (
    ledger_id TEXT PRIMARY KEY,
    seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
