-- True of a CHARGED row that must be the only one of its reference under another key: of two that are written at once, the
-- index lets one through. Null of everything else, and of what the previous version writes.
ALTER TABLE ledger ADD COLUMN is_only_charge boolean;
CREATE UNIQUE INDEX ledger_only_charge ON ledger (account, reference) WHERE is_only_charge;
