-- A decision names its invoice, so that the next version can look up attempts by invoice alone and drop the index of
-- their keys. NULL in rows that the previous version writes.
ALTER TABLE resolutions ADD COLUMN invoice_id bigint REFERENCES invoices (id);
UPDATE resolutions AS r SET invoice_id = a.invoice_id FROM attempts AS a WHERE a.key = r.key;
