-- The column is NULL where the text is its own NFC form, as nearly always (ASCII always is), so that both indexes stay
-- small.
ALTER TABLE invoices ADD COLUMN reference_nfc TEXT;
CREATE INDEX invoices_reference_nfc ON invoices (reference_nfc) WHERE reference_nfc IS NOT NULL;
CREATE INDEX invoices_reference_beyond_ascii ON invoices (id) WHERE reference GLOB '*[^ -~]*';
