-- How often a fault script met a key or a rule, so that a restart goes on counting. Rows of scripts that are no longer in
-- force mean nothing; setting a script deletes them.
CREATE TABLE fault_counts (
    script text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (script, subject)
);
