-- Why a charge was refused. Null of everything else, and of rows that the previous version writes.
ALTER TABLE ledger ADD COLUMN decline_class TEXT;
ALTER TABLE ledger ADD COLUMN decline_code TEXT;

-- What operators set at run time, in the form in which they sent it; null once they took it back. Of later revisions only
-- the last one stands here.
CREATE TABLE run_time_settings (
    name TEXT PRIMARY KEY,
    value TEXT,
    revision INTEGER NOT NULL,
    set_at INTEGER NOT NULL
) STRICT;
