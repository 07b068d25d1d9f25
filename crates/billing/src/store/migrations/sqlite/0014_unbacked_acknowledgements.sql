-- Acceptances by operators that a ledger has lost the row of a charge by which an invoice is PAID.
CREATE TABLE unbacked_acknowledgements (
    id INTEGER PRIMARY KEY,
    ledger_id TEXT NOT NULL,
    invoice_id INTEGER NOT NULL REFERENCES invoices (id),
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
