-- An index of an expression, not a column: programs of the previous version write rows too, and do not know such a
-- column.
CREATE INDEX invoices_reference_nfc ON invoices ((normalize(reference, NFC) COLLATE "C"))
    WHERE reference IS NOT NFC NORMALIZED;
