-- True for a CHARGED row that must be the only charge of its reference: if two are written at once, the index permits
-- one. Null for other rows, and for rows that the previous version writes.
ALTER TABLE ledger ADD COLUMN is_only_charge boolean;
CREATE UNIQUE INDEX ledger_only_charge ON ledger (account, reference) WHERE is_only_charge;
