-- Every decision, one row each; never updated, never deleted. A key is known for as long as the ledger lives.
CREATE TABLE ledger (
    seq INTEGER PRIMARY KEY,
    key TEXT UNIQUE,
    account TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    reference TEXT,
    customer_id INTEGER NOT NULL,
    currency TEXT NOT NULL,
    amount_minor INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state = 'CHARGED' OR state = 'REFUSED' OR state = 'VOIDED'),
    route TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- One row: the id of this ledger. A restored copy gets a new id (`new-ledger-id`).
CREATE TABLE ledger_meta (ledger_id TEXT NOT NULL) STRICT;
CREATE UNIQUE INDEX ledger_meta_has_one_row ON ledger_meta ((1));
