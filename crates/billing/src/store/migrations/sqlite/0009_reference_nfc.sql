-- The column stays empty where the text is its own NFC form, which is nearly always, so that both indexes are small;
-- a name of ASCII alone always is.
ALTER TABLE invoices ADD COLUMN reference_nfc TEXT;
CREATE INDEX invoices_reference_nfc ON invoices (reference_nfc) WHERE reference_nfc IS NOT NULL;
CREATE INDEX invoices_reference_beyond_ascii ON invoices (id) WHERE reference GLOB '*[^ -~]*';
