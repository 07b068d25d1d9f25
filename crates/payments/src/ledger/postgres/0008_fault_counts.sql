-- Deliveries by fault script, and by key or rule, so that the counts survive a restart. Rows of scripts that are no
-- longer in force have no effect; setting a script deletes them.
CREATE TABLE fault_counts (
    script text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (script, subject)
);
