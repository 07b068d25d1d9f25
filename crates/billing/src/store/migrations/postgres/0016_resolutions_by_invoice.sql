-- A decision names its invoice, so that the next version can look attempts up by invoice alone and drop the index of their
-- keys. NULL in rows that the version before writes.
ALTER TABLE resolutions ADD COLUMN invoice_id bigint REFERENCES invoices (id);
UPDATE resolutions AS r SET invoice_id = a.invoice_id FROM attempts AS a WHERE a.key = r.key;
