-- Rows of the provider's ledger that belong to no invoice and that an operator has explained.
CREATE TABLE ledger_acknowledgements (
    id INTEGER PRIMARY KEY,
    ledger_id TEXT NOT NULL,
    seq_first INTEGER NOT NULL CHECK (seq_first >= 1),
    seq_last INTEGER NOT NULL CHECK (seq_last >= seq_first),
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
