-- An index of an expression, not a column: programs of the version before write rows as well, and know no such column.
CREATE INDEX invoices_reference_nfc ON invoices ((normalize(reference, NFC) COLLATE "C"))
    WHERE reference IS NOT NFC NORMALIZED;
