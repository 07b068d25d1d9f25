-- Deliveries by fault script, and by key or rule, so that the counts survive a restart. Rows of scripts that are no
-- longer in force have no effect; setting a script deletes them.
CREATE TABLE fault_counts (
    script TEXT NOT NULL,
    subject TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (script, subject)
) STRICT, WITHOUT ROWID;
