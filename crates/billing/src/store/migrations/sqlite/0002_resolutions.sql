-- States before and after each decision; NULL in rows of older versions.
ALTER TABLE resolutions ADD COLUMN attempt_from TEXT;
ALTER TABLE resolutions ADD COLUMN attempt_to TEXT;
ALTER TABLE resolutions ADD COLUMN invoice_from TEXT;
ALTER TABLE resolutions ADD COLUMN invoice_to TEXT;
