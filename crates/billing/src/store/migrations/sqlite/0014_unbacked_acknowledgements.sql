-- Invoices that are PAID by a charge whose row a ledger of the provider has lost, as an operator has accepted.
CREATE TABLE unbacked_acknowledgements (
    id INTEGER PRIMARY KEY,
    ledger_id TEXT NOT NULL,
    invoice_id INTEGER NOT NULL REFERENCES invoices (id),
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
