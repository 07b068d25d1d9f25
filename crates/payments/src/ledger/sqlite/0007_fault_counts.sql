-- How often a fault script met a key or a rule, so that a restart goes on counting. Rows of scripts that are no longer in
-- force mean nothing; setting a script deletes them.
CREATE TABLE fault_counts (
    script TEXT NOT NULL,
    subject TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (script, subject)
) STRICT, WITHOUT ROWID;
